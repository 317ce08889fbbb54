"""Trains UnifiedLandmarkPoseNet: ``python -m mlx_faceau.train_landmark_pose`` equals the command
``mlx-faceau train landmark-pose``."""

import sys

from mlx_faceau.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "landmark-pose", *sys.argv[1:]]))

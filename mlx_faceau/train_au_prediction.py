"""Trains AUPredictionNet: ``python -m mlx_faceau.train_au_prediction`` equals the command
``mlx-faceau train au``."""

import sys

from mlx_faceau.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "au", *sys.argv[1:]]))

"""Build the open PDM from ICT-FaceKit's file.

    python benchmarks/open_pdm.py ict_facekit.npz --output open_pdm.txt

The file in ``mlx_faceau/weights/`` was made so; with another BLAS last digits and signs of zeros
differ. ``tests/data/test_open_pdm.py`` compares both.
"""

import argparse
from pathlib import Path

from mlx_faceau.core.pdm import write_pdm
from mlx_faceau.data.labels.open_pdm import build_open_pdm, read_ict_facekit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ict", type=Path, help="ICT-FaceKit as .npz")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    write_pdm(args.output, build_open_pdm(read_ict_facekit(args.ict)))


if __name__ == "__main__":
    main()

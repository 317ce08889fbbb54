"""Builds the open PDM from ICT-FaceKit's file.

python benchmarks/open_pdm.py ICT.npz            # writes mlx_faceau/weights/open_pdm.txt anew
python benchmarks/open_pdm.py ICT.npz --check    # only compares: 1 where the file differs
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from mlx_faceau.core.pdm import OPEN_PDM, PDM, read_pdm, write_pdm
from mlx_faceau.data.labels.open_pdm import build_open_pdm, read_ict_facekit

TOLERANCES = {"mean": 1e-3, "basis": 1e-4, "variances": 1e-2}  # for another BLAS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ict", type=Path, metavar="ICT.npz")
    parser.add_argument("--check", action="store_true", help="compare, write no PDM")
    args = parser.parse_args()
    built = build_open_pdm(read_ict_facekit(args.ict))
    differs = differences(built, read_pdm(OPEN_PDM)) if OPEN_PDM.exists() else "missing"
    print(f"{OPEN_PDM.name}: {differs or 'is what the model gives'}")
    if differs and not args.check:  # signed zeros are no difference: the file keeps its hash
        write_pdm(OPEN_PDM, built)
    return 1 if differs and args.check else 0


def differences(built: PDM, shipped: PDM) -> str:
    """What differs; empty where both are the same but for the last digits."""
    found = {n: np.abs(getattr(built, n) - getattr(shipped, n)).max() for n in TOLERANCES}
    return ", ".join(
        f"{name} differs by {found[name]:.2g}"
        for name, most in TOLERANCES.items()
        if found[name] > most
    )


if __name__ == "__main__":
    sys.exit(main())

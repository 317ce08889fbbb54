"""``mlx-faceau demo``: the built-in pair on a portrait."""

import argparse
from pathlib import Path

_NAME = "astronaut.png"
_PERSON = "Eileen Collins (NASA, public domain; from scikit-image)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", default="mlx-faceau-demo", help="folder (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    import cv2

    from mlx_faceau.errors import MissingDependency

    from .main import build_parser

    try:
        from skimage.data import astronaut
    except ImportError:
        raise MissingDependency("skimage", extra="demo") from None
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    portrait = folder / _NAME
    portrait.write_bytes(cv2.imencode(".png", astronaut()[..., ::-1])[1].tobytes())
    words = ["predict", str(portrait), "--output", str(folder), "--overlay", "--report"]
    predict = build_parser("predict").parse_args(words)
    return int(predict.run(predict)) or _print_result(portrait.with_suffix(".csv"))


def _print_result(table: Path) -> int:
    """Print what was measured; 1 where no face was found."""
    import numpy as np

    from mlx_faceau.core.facs import AU_NAMES
    from mlx_faceau.output.openface_csv import read_openface_csv
    from mlx_faceau.output.tables import au_label

    rows = read_openface_csv(table)
    if not rows["success"][0]:
        print(f"no face was found in the portrait of {_PERSON}")
        return 1
    angles = [np.degrees(rows[f"pose_R{axis}"][0]) for axis in "xyz"]
    print(f"\n{_PERSON}")
    print("  head pose: pitch {:z.0f}, yaw {:z.0f}, roll {:z.0f} degrees".format(*angles))
    print("    relative to a camera in front of the image's centre; positive pitch looks down")
    print("  action units above 1, of 5:")
    for name in AU_NAMES:
        if rows[name][0] > 1:
            print(f"    {au_label(name):28}{rows[name][0]:4.1f}")
    print("\nyour own: mlx-faceau predict photo.jpg --overlay --report (or webcam)")
    return 0

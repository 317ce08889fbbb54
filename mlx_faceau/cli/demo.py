"""``mlx-faceau demo``: the built-in pair on a portrait; with --train a tour of training instead."""

import argparse
from pathlib import Path

_NAME = "astronaut.png"
_PERSON = "Eileen Collins (NASA, public domain; from scikit-image)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", default="mlx-faceau-demo", help="default: %(default)s"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="draw synthetic people, train both nets on them, export them and predict with every "
        "backend; needs the extras train and export",
    )
    group = parser.add_argument_group("with --train")
    group.add_argument(
        "--faces", type=int, default=3072, help="to train on; a sixth as many more to test on "
        "(default: %(default)s)"
    )  # fmt: skip
    group.add_argument("--epochs", type=int, help="of both trainings (default: 5 and 7)")
    group.add_argument(
        "--framework", choices=("mlx", "torch"), help="default: mlx where it is installed"
    )
    group.add_argument("--force", action="store_true", help="replace an earlier demo in the folder")


def run(args: argparse.Namespace) -> int:
    if args.train:
        from .demo_training import run_training

        return run_training(args)
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
    print("  head pose: pitch {:.0f}, yaw {:.0f}, roll {:.0f} degrees".format(*angles))
    print("  action units above 1, of 5:")
    for name in AU_NAMES:
        if rows[name][0] > 1:
            print(f"    {au_label(name):28}{rows[name][0]:4.1f}")
    print(
        "\nyour own: mlx-faceau predict photo.jpg --overlay --report, or mlx-faceau predict webcam"
    )
    return 0

"""``mlx-faceau demo``: the built-in pair on a portrait; with --train a tour of training instead."""

import argparse
from pathlib import Path

_NAME = "astronaut.png"
_WHO = "Eileen Collins (NASA, public domain; from scikit-image)"


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
    from .demo_training import add_training_arguments

    add_training_arguments(parser.add_argument_group("with --train"))


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
    (folder / _NAME).write_bytes(cv2.imencode(".png", astronaut()[..., ::-1])[1].tobytes())
    words = ["predict", str(folder / _NAME), "--output", str(folder), "--overlay", "--report"]
    predict = build_parser("predict").parse_args(words)
    status = int(predict.run(predict))
    return status or _tell(folder)


def _tell(folder: Path) -> int:
    """Print what was measured; 1 where no face was found."""
    import numpy as np

    from mlx_faceau.core.facs import AU_DESCRIPTIONS, AU_NAMES
    from mlx_faceau.output.openface_csv import read_openface_csv

    rows = read_openface_csv((folder / _NAME).with_suffix(".csv"))
    if not rows["success"][0]:
        print(f"no face was found in the portrait of {_WHO}")
        return 1
    turns = [np.degrees(rows[f"pose_R{axis}"][0]) for axis in "xyz"]
    print("\n" + _WHO)
    print("  head pose: pitch {:.0f}, yaw {:.0f}, roll {:.0f} degrees".format(*turns))
    print("  action units above 1, of 5:")
    for name in AU_NAMES:
        if rows[name][0] > 1:
            title = f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"
            print(f"    {title:28}{rows[name][0]:4.1f}")
    print(f"\nnumbers, picture and page are in {folder.resolve()}:")
    for path in sorted(folder.glob(f"{Path(_NAME).stem}.*")):
        print(f"  {path.name}")
    print("your own: mlx-faceau predict photo.jpg --overlay --report, or mlx-faceau predict webcam")
    return 0

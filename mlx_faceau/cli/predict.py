"""``mlx-faceau predict``: landmarks, pose and action units of images, videos and a webcam."""

import argparse

from mlx_faceau.errors import UsageError

_NO_SETTINGS = (
    "columns", "overlay", "show", "aligned_faces", "report", "file_per_image", "resume", "shard",
)  # fmt: skip
# Options that --aligned takes too.
_OF_CROPS = (
    "inputs", "landmark_model", "au_model", "aligned", "backend", "providers", "format", "output",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s INPUT [INPUT ...] [options]"
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, videos, folders or patterns of them, or webcam (webcam:1 for the second)",
    )
    group = parser.add_argument_group("basic options")
    group.add_argument(
        "--landmark-model",
        metavar="PATH",
        help="landmark net: file, folder or builtin (default: builtin, unless --au-model is given)",
    )
    group.add_argument(
        "--au-model",
        metavar="PATH",
        help="action unit net, likewise (default: builtin, unless --landmark-model is given)",
    )
    group.add_argument(
        "--output",
        metavar="FILE|DIR",
        help="a file for one table, a folder for several, - for standard output; default: "
        "NAME.csv in the current folder (--aligned: standard output)",
    )
    group.add_argument("--overlay", action="store_true", help="also NAME.overlay.mp4, or .png")
    group.add_argument("--report", action="store_true", help="also NAME.report.html")
    group.add_argument(
        "--show", action="store_true", help="show the overlay in a window while it runs (q ends it)"
    )
    group.add_argument(
        "--aligned",
        action="store_true",
        help="the inputs are 112x112 standard crops (never guessed); no faces are detected",
    )
    group = parser.add_argument_group("advanced: nets")
    group.add_argument(
        "--backend",
        choices=("auto", "coreml", "mlx", "onnx", "torch"),
        default="auto",
        help="what runs the nets (default: %(default)s)",
    )
    group.add_argument(
        "--providers",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="LIST",
        help="execution providers of ONNX Runtime, best first, such as cuda,cpu",
    )
    group = parser.add_argument_group("advanced: face detection and tracking")
    group.add_argument(
        "--detector",
        default="auto",
        metavar="NAME|FILE",
        help="auto, dlib, vision (macOS), a YuNet .onnx file, or package.module:function "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--detect-every",
        type=int,
        default=30,
        metavar="N",
        help="frames between detections while all faces are tracked (default: %(default)s)",
    )
    group.add_argument("--max-faces", type=int, metavar="N", help="track at most N faces")
    group.add_argument(
        "--min-confidence",
        type=float,
        default=0.5,
        help="success is 0 in rows of lower confidence (default: %(default)s)",
    )
    group = parser.add_argument_group("advanced: what is written")
    group.add_argument(
        "--format",
        choices=("csv", "json", "jsonl", "parquet"),
        help="default: by --output's ending, else csv (OpenFace's columns); json is for --aligned",
    )
    group.add_argument(
        "--columns",
        metavar="LIST",
        help="groups of columns: pose,2d,3d,params,aus (default: all there are; 3d needs a PDM)",
    )
    group.add_argument(
        "--pdm",
        metavar="FILE",
        help="point distribution model in OpenFace's text format (default: the open PDM, if the "
        "net was trained with it)",
    )
    group.add_argument(
        "--camera-intrinsics",
        metavar="FX,FY,CX,CY",
        help="focal lengths and principal point in pixels (default: OpenFace's estimate)",
    )
    group.add_argument(
        "--presence-threshold",
        type=float,
        metavar="INTENSITY",
        help="AUxx_c is 1 from this intensity on (default: by unit as the network records, else 1)",
    )
    group.add_argument(
        "--aligned-faces",
        metavar="DIR",
        help="also write the 112x112 crop of each face: DIR/NAME/frame_000001_face_00.png",
    )
    group.add_argument("--smooth", action="store_true", help="One-Euro filter over each face")
    group.add_argument(
        "--subtract-neutral",
        action="store_true",
        help="at the end, subtract each person's neutral face from the action units",
    )
    group.add_argument(
        "--file-per-image",
        action="store_true",
        help="a table for each image instead of one for all",
    )
    group = parser.add_argument_group("advanced: parts of videos and many inputs")
    group.add_argument(
        "--frame-step", type=int, default=1, metavar="N", help="take every Nth frame"
    )
    group.add_argument("--start", type=_seconds, default=0.0, metavar="SECONDS", help="begin here")
    group.add_argument("--end", type=_seconds, metavar="SECONDS", help="end before")
    group.add_argument("--resume", action="store_true", help="skip inputs with complete results")
    group.add_argument(
        "--shard", metavar="I/N", help="take the Ith of N equal parts of the inputs, I from 1"
    )
    own = [a for a in parser._actions if a.default != argparse.SUPPRESS]  # not -h and -v
    defaults = {a.dest: a.default for a in own if a.dest not in _OF_CROPS}
    parser.set_defaults(face_defaults=defaults)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, such as 90") from None


def run(args: argparse.Namespace) -> int:
    from mlx_faceau.weights.builtin import BUILTIN

    note = ""  # printed once inputs and nets are there
    if not args.landmark_model and not args.au_model:
        args.landmark_model = args.au_model = BUILTIN
    elif not args.au_model:
        note = "no action units: give --au-model PATH, or --au-model builtin\n"
    elif not args.landmark_model:
        note = "no landmarks: give --landmark-model PATH, or --landmark-model builtin\n"
    given = vars(args)
    changed = {n: given[n] for n, default in args.face_defaults.items() if given[n] != default}
    if args.aligned:
        from .predict_aligned import run_aligned

        if changed:  # they mean nothing for crops; silence would look like success
            flags = ", ".join("--" + name.replace("_", "-") for name in sorted(changed))
            raise UsageError(f"{flags}: not with --aligned, which reads crops one by one")
        return run_aligned(args, note)
    from .predict_faces import run_faces

    # Of these the record names what changes the numbers.
    return run_faces(args, {n: v for n, v in changed.items() if n not in _NO_SETTINGS}, note)

"""``mlx-faceau evaluate``: accuracy of a net on a file of labelled faces."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_faceau.evaluation.evaluate import Report

_RENDERED = ("evaluation.txt", "evaluation.png", "evaluation.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model folder or file, or builtin")
    parser.add_argument("--data", required=True, metavar="FILE", help="HDF5 file of labelled faces")
    parser.add_argument(
        "--backend",
        choices=("auto", "coreml", "mlx", "onnx", "torch"),
        default="auto",
        help="what runs the net (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder (of builtin one for each net in it) for evaluation.json, .txt, .png and "
        ".html; in the model's own folder, or the one it is exported to, the next export's model "
        "card quotes it",
    )
    parser.add_argument(
        "--boxes",
        choices=("auto", "file", "yunet", "dlib", "mtcnn", "none"),
        default="auto",
        help="also measure on crops cut from face boxes: the file's own, or ones that err as a "
        "detector's were measured to; auto takes the file's where a known detector made them, "
        "else yunet (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-outside", action="store_true", help="keep faces with a landmark outside the crop"
    )
    parser.add_argument(
        "--require-targets", action="store_true", help="exit with 1 if a target is missed"
    )


def run(args: argparse.Namespace) -> int:
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights.builtin import is_builtin

    if not is_builtin(args.model):
        return _run(args, args.output, read_description(Path(args.model)))
    folders = {kind: args.output and str(Path(args.output) / kind) for kind in CONFIGS}
    return max(_run(args, folders[kind], read_builtin(kind)) for kind in CONFIGS)


def read_builtin(kind: str) -> dict[str, Any]:
    """What a net of the built-in pair says about itself.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    from mlx_faceau.core.checkpoint import read_metadata
    from mlx_faceau.weights import builtin

    return read_metadata(builtin.check(builtin.checkpoint_file(kind)))


def _run(args: argparse.Namespace, output: str | None, metadata: dict[str, Any]) -> int:
    from mlx_faceau.core.atomic_io import prepare_output_folder
    from mlx_faceau.core.provenance import training_hashes
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.evaluation.evaluate import evaluate
    from mlx_faceau.evaluation.text_report import format_report
    from mlx_faceau.output.accuracy_section import EVALUATION_NAME

    _refuse_other_kinds(args.model, metadata["kind"])
    dataset = FaceDataset(args.data, keep_outside=args.keep_outside)
    predictor = _load(args.model, metadata["kind"], args.backend)
    if output:
        prepare_output_folder(output, (EVALUATION_NAME, *_RENDERED))
    report = evaluate(
        lambda images: _arrays(predictor.predict_batch(images[..., ::-1])),
        dataset,
        metadata["kind"],
        _statistics(metadata, args.model),
        boxes=args.boxes,
        trained_on=training_hashes(metadata),
    )
    title = f"{args.model} ({predictor.backend}) on {args.data}"
    print(f"{title}\n{format_report(report)}")
    if output:
        model = {"path": args.model, **identity(predictor.describe())}
        data = {"path": args.data, "hash": dataset.hash}
        about = {"model": model, "data": data, **_conditions(args)}
        _write(Path(output), title, report, about)
    return 1 if args.require_targets and not report.passed else 0


def read_description(path: Path) -> dict[str, Any]:
    """What a model folder or file says about itself: at least its ``kind``.

    Raises:
        CheckpointError: if there is no model, or it does not say.
    """
    from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
    from mlx_faceau.core.checkpoint import BEST_NAME, read_metadata
    from mlx_faceau.errors import CheckpointError

    if path.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        return {"kind": read_pyfaceau(path)[0].kind}
    if path.is_dir() and path.suffix != COREML_SUFFIX and not (path / BEST_NAME).is_file():
        path = _exported_in(path)
    exported_file = path.suffix in (ONNX_SUFFIX, COREML_SUFFIX)
    metadata = read_exported_metadata(path) if exported_file else read_metadata(path)
    if metadata is None or "kind" not in metadata:
        raise CheckpointError(f"{path}: does not say which net it is; export it again")
    return metadata


def _exported_in(folder: Path) -> Path:
    """The exported file of the one net that a folder without a checkpoint holds."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX
    from mlx_faceau.core.checkpoint import BEST_NAME
    from mlx_faceau.errors import CheckpointError

    names = [[f"{kind}{suffix}" for suffix in (ONNX_SUFFIX, COREML_SUFFIX)] for kind in CONFIGS]
    there = [[folder / name for name in of_kind if (folder / name).exists()] for of_kind in names]
    found = [of_kind[0] for of_kind in there if of_kind]
    if not found:
        wanted = ", ".join(name for of_kind in names for name in of_kind)
        raise CheckpointError(f"{folder}: holds neither {BEST_NAME} nor an exported net ({wanted})")
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: holds two nets, {both}; name one of these files")
    return found[0]


def identity(description: dict[str, Any]) -> dict[str, Any]:
    """What ran: backend, file, its precision if it was exported, and the SHA-256 of the checkpoint
    that its weights are from."""
    from mlx_faceau.core.checkpoint import file_hash

    path = Path(description["path"])
    metadata = description.get("metadata") or {}
    own = file_hash(path) if path.is_file() else None
    return {
        "backend": description["backend"],
        "file": str(path),
        "precision": metadata.get("precision"),
        "name": metadata.get("builtin"),
        "checkpoint": metadata.get("source_hash") or own,
    }


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on besides net and faces."""
    from mlx_faceau.core.libraries import package_version
    from mlx_faceau.evaluation.crops import ROLL, SCALE, SHIFT
    from mlx_faceau.evaluation.evaluate import JITTER_SEED

    return {
        "package_version": package_version(),
        "options": {
            "backend": args.backend,
            "boxes": args.boxes,
            "keep_outside": args.keep_outside,
        },
        "jitter": {"shift": SHIFT, "scale": SCALE, "roll": ROLL, "seed": JITTER_SEED},
    }


def _refuse_other_kinds(model: str, kind: str) -> None:
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.errors import CheckpointError

    if kind not in CONFIGS:
        raise CheckpointError(
            f"{model}: a {kind} model; evaluate one net at a time, such as {' or '.join(CONFIGS)}, "
            "by its checkpoint or its own file"
        )


def _load(path: str, kind: str, backend: str) -> Any:
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor

    load = load_predictor if kind == "landmark_pose" else load_au_predictor
    return load(path, backend=backend)


def _statistics(metadata: dict[str, Any], source: str) -> Any:
    from mlx_faceau.train.target_statistics import TargetStatistics

    recorded = metadata.get("target_statistics")
    return None if recorded is None else TargetStatistics.from_json(recorded, source)


def _arrays(prediction: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in prediction.items() if hasattr(value, "shape")}


def _write(folder: Path, title: str, report: "Report", about: dict[str, Any]) -> None:
    from mlx_faceau.core.atomic_io import atomic_file
    from mlx_faceau.evaluation.html_report import write_page
    from mlx_faceau.evaluation.plots import draw_report
    from mlx_faceau.evaluation.text_report import format_report
    from mlx_faceau.output.accuracy_section import EVALUATION_NAME
    from mlx_faceau.train.history import write_json

    text, picture, page = (folder / name for name in _RENDERED)
    write_json(folder / EVALUATION_NAME, {**about, **report.to_json()})
    with atomic_file(text) as temporary:
        temporary.write_text(f"{title}\n{format_report(report)}\n", "utf-8")
    write_page(report, title, page, draw_report(report, picture))

"""``mlx-faceau evaluate``: accuracy of a net on a file of labelled faces."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from mlx_faceau.evaluation.evaluate import Evaluation

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
        help="also measure on crops cut from face boxes: the file's own, or simulated ones with a "
        "detector's measured errors; auto takes the file's where a known detector made them, "
        "else yunet (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-outside", action="store_true", help="keep faces with a landmark outside the crop"
    )
    parser.add_argument(
        "--require-targets", action="store_true", help="exit with 1 if a target is missed"
    )


def run(args: argparse.Namespace) -> int:
    from mlx_faceau.core.atomic_io import check_output_folder
    from mlx_faceau.weights.builtin import is_builtin

    from .model_metadata import read_models

    if args.output:
        check_output_folder(args.output)
    statuses = []
    for metadata in read_models(args.model):
        output = Path(args.output) if args.output else None
        if output and is_builtin(args.model):
            output /= metadata["kind"]
        statuses.append(_evaluate(args, output, metadata))
    return max(statuses)


def _evaluate(args: argparse.Namespace, output: Path | None, metadata: dict[str, Any]) -> int:
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.core.atomic_io import prepare_output_folder
    from mlx_faceau.core.provenance import pdm_of, training_hashes
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.errors import CheckpointError
    from mlx_faceau.evaluation.evaluate import evaluate
    from mlx_faceau.evaluation.report import as_text
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
    from mlx_faceau.output.model_card import EVALUATION_NAME
    from mlx_faceau.train.target_statistics import TargetStatistics
    from mlx_faceau.weights.builtin import identity

    kind = metadata["kind"]
    if kind not in CONFIGS:
        raise CheckpointError(
            f"{args.model}: a {kind} model; evaluate one net at a time, such as "
            f"{' or '.join(CONFIGS)}, by its checkpoint or its own file"
        )
    dataset = FaceDataset(args.data, keep_outside=args.keep_outside)
    load = load_predictor if kind == "landmark_pose" else load_au_predictor
    predictor: Any = load(args.model, backend=args.backend)
    if output:
        prepare_output_folder(output, (EVALUATION_NAME, *_RENDERED))
    recorded, shapes = metadata.get("target_statistics"), CONFIGS[kind]().output_shapes

    def predict(images: "np.ndarray") -> dict[str, Any]:
        outputs = predictor.predict_batch(images[..., ::-1])
        return {name: value for name, value in outputs.items() if hasattr(value, "shape")}

    evaluation = evaluate(
        predict,
        dataset,
        kind,
        None if recorded is None else TargetStatistics.from_json(recorded, args.model, shapes),
        boxes=args.boxes,
        trained_on=training_hashes(metadata),
        pdm=pdm_of(metadata),
    )
    title = f"{args.model} ({predictor.backend}) on {args.data}"
    print(f"{title}\n{as_text(evaluation)}")
    if output:
        described = predictor.describe()
        own = described.get("metadata") or {}
        about = {
            "model": {
                "path": args.model,
                "backend": described["backend"],
                "file": described["path"],
                "precision": own.get("precision"),  # of an exported file
                "name": own.get("builtin"),
                "checkpoint": identity(described)["hash"],
            },
            "data": {"path": args.data, "hash": dataset.hash},
            "options": {name: vars(args)[name] for name in ("backend", "boxes", "keep_outside")},
        }
        _write(output, title, evaluation, about)
    return 1 if args.require_targets and not evaluation.passed else 0


def _write(folder: Path, title: str, evaluation: "Evaluation", about: dict[str, Any]) -> None:
    from mlx_faceau.core.atomic_io import atomic_file, write_json
    from mlx_faceau.core.libraries import package_version
    from mlx_faceau.evaluation import report
    from mlx_faceau.evaluation.crops import ROLL, SCALE, SHIFT
    from mlx_faceau.evaluation.evaluate import JITTER_SEED
    from mlx_faceau.output.model_card import EVALUATION_NAME

    record = {
        **about,
        "package_version": package_version(),
        "jitter": {"shift": SHIFT, "scale": SCALE, "roll": ROLL, "seed": JITTER_SEED},
        **evaluation.to_json(),
        "summary": report.header(evaluation),
        "tables": [vars(table) for table in report.tables(evaluation)],
        "notes": report.notes(evaluation),
    }
    text, picture, page = (folder / name for name in _RENDERED)
    write_json(folder / EVALUATION_NAME, record)
    with atomic_file(text) as temporary:
        temporary.write_text(
            f"{title}\n{report.as_text(evaluation)}\n", "utf-8", "backslashreplace"
        )
    report.write_report(evaluation, title, page, report.draw_evaluation(evaluation, picture))
    for path in (folder / EVALUATION_NAME, text, picture, page):
        if path.exists():
            print(f"written: {path}")

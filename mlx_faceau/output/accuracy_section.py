"""The accuracy that lies recorded beside a checkpoint, as Markdown for its model card.

An evaluation counts where it is of this very checkpoint; else the training's own validation after
the epoch that the checkpoint was saved at.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from types import NoneType
from typing import Any

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.provenance import training_hashes
from mlx_faceau.evaluation.text_report import (
    au_label,
    breakdown_headings,
    breakdown_value,
    ced_labels,
    header,
    notes,
    number,
)

EVALUATION_NAME = "evaluation.json"
_HISTORY_NAME = "training_history.json"
_CONSTANT = "constant predictor"
_NOT_MEASURED = (
    "Not measured. `mlx-faceau evaluate` with `--output` beside the checkpoint, and an export "
    "after that, put the figures here."
)
_FIGURES = {
    "landmark_pose": {
        "correlation": "landmark correlation",
        "correlation_without_mean": "without the mean face",
        "mae": "landmark MAE, px",
    },
    "au_prediction": {"correlation": "AU correlation, mean of each unit's r", "mae": "AU MAE"},
}

_LARGEST = 1 << 63  # whole number; larger ones cannot be written as a fraction

# What of a file is read, and as what; see _misfit.
_NUMBER = (int, float, NoneType)
_METRICS = {
    **dict.fromkeys(("correlation", "correlation_without_mean", "mae", "nme"), _NUMBER),
    **dict.fromkeys(ced_labels(), _NUMBER),
    "pose": {"*": _NUMBER},
    "aus": {"*": {"*": _NUMBER}},
}
_HISTORY = {
    "data": {"hash": str},
    "epochs": [{"epoch": int, "validation": {"loss": _NUMBER}, "metrics": _METRICS}],
}
_EVALUATION = {
    "model": {
        "file": str,
        "backend": str,
        "precision": (str, NoneType),
        "checkpoint": (str, NoneType),
    },
    "data": {"hash": str},
    **dict.fromkeys(("faces", "people", "left_out"), int),
    **dict.fromkeys(("people_by", "means_from"), str),
    **dict.fromkeys(("net", "jittered", "constant"), _METRICS),
    "boxes": {"?": None, "name": str, "about": str, "metrics": _METRICS},
    "intervals": {"pose": {"*": [_NUMBER]}, "aus": {"*": {"*": [_NUMBER]}}, "*": [_NUMBER]},
    "breakdown": [{"by": str, "part": str, "*": _NUMBER}],
}

Columns = Mapping[str, Mapping[str, Any]]


def recorded_accuracy(
    metadata: Mapping[str, Any], sources: Collection[str], run: Path, folder: Path
) -> Iterator[str]:
    """Paragraphs and tables about how good a net is.

    Args:
        metadata: the checkpoint's.
        sources: its SHA-256, and that of the file its weights were taken from.
        run: the checkpoint's folder.
        folder: another one in which an evaluation may lie.
    """
    reader = _Reader()
    try:
        paragraphs = list(_recorded(reader, metadata, sources, run, folder))
    except _LacksError:  # of another version
        paragraphs = [_NOT_MEASURED]
    yield from dict.fromkeys(reader.damaged)
    yield from paragraphs


class _LacksError(Exception):
    """A file of ours does not hold what is asked of it."""


class _Record(dict[str, Any]):
    """An object of a JSON file: what it lacks is no defect of the program."""

    def __missing__(self, key: str) -> Any:
        raise _LacksError(key)


class _Reader:
    """Reads files of ours, and keeps a sentence about each that is damaged."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def read(self, path: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
        """What a file holds; nothing where there is none or it is damaged."""
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text("utf-8"), object_hook=_Record)
        except (OSError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}"
        else:
            if (wrong := _misfit(content, shape)) is None:
                return content  # type: ignore[no-any-return]
            reason = f"`{wrong}` is of another type" if wrong else "no JSON object"
        self.damaged.append(f"`{path.name}` is damaged ({reason}) and is not quoted.")
        return {}


def _misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """Where a JSON value has another type than its shape says; None where it has none.

    A shape is a type or several, a list of one shape, or a mapping of shapes by key, of which any
    may be lacking; ``*`` stands for all other keys, and with ``?`` it may be null.
    """
    inner: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(shape, list):
        fits = isinstance(value, list)
        if fits:
            inner = [(f"{place}[{i}]", v, shape[0]) for i, v in enumerate(value)]
    elif isinstance(shape, dict):
        fits = isinstance(value, dict) or (value is None and "?" in shape)
        if value is not None and fits:
            known = [(k, v, shape.get(k, shape.get("*"))) for k, v in value.items()]
            inner = [(f"{place}.{k}".strip("."), v, s) for k, v, s in known if s is not None]
    else:
        fits = isinstance(value, shape) and not (isinstance(value, int) and abs(value) > _LARGEST)
    if not fits:
        return place
    return next((w for p, v, s in inner if (w := _misfit(v, s, p)) is not None), None)


def _recorded(
    reader: _Reader,
    metadata: Mapping[str, Any],
    sources: Collection[str],
    run: Path,
    folder: Path,
) -> Iterator[str]:
    kind = metadata["kind"]
    evaluation = _evaluation(reader, kind, sources, (folder, run))
    if evaluation is not None:
        yield from _evaluated(evaluation, training_hashes(metadata))
        return
    epochs, number_of_own = _epochs(reader, metadata, run), _finished_epoch(metadata)
    own = [entry for entry in epochs if entry["epoch"] == number_of_own]
    if not own:
        yield _NOT_MEASURED
        return
    yield _about_validation(own[0], epochs, metadata)
    yield from _tables(kind, {"net": own[0]["metrics"]}, {})


def _evaluation(
    reader: _Reader, kind: str, sources: Collection[str], folders: Iterable[Path]
) -> dict[str, Any] | None:
    for folder in folders:
        content = reader.read(folder / EVALUATION_NAME, _EVALUATION)
        same = content.get("model", {}).get("checkpoint") in sources
        if same and content.get("kind") == kind:
            return content
    return None


def _epochs(reader: _Reader, metadata: Mapping[str, Any], run: Path) -> list[dict[str, Any]]:
    """The history's entries; none where it tells of a training on other data."""
    history = reader.read(run / _HISTORY_NAME, _HISTORY)
    own, recorded = ((of.get("data") or {}).get("hash") for of in (metadata, history))
    return history["epochs"] if own is not None and own == recorded else []


def _finished_epoch(metadata: Mapping[str, Any]) -> int | None:
    """The epoch after which the weights were saved; None amid one, or where nothing tells."""
    progress = metadata.get("progress") or {}
    return progress.get("epoch") if progress.get("batch") == 0 else None


def _about_validation(
    own: Mapping[str, Any], epochs: list[dict[str, Any]], metadata: Mapping[str, Any]
) -> str:
    if (metadata.get("training") or {}).get("overfit"):
        return (
            f"On the few faces that the net learned by heart, after epoch {own['epoch']}: **it was "
            "trained on them**, so this says nothing about other faces."
        )
    known = [entry for entry in epochs if entry["validation"]["loss"] is not None]
    best = min(known, key=lambda entry: float(entry["validation"]["loss"]), default=own)
    where = f"On the faces that its training validated on, after epoch {own['epoch']}"
    if own is best:
        return (
            f"{where}, the faces that chose the epoch: other people's faces will do a little worse."
        )
    return f"{where}; after epoch {best['epoch']} it was at its best."


def _evaluated(evaluation: Mapping[str, Any], trained_on: Collection[str]) -> Iterator[str]:
    data = evaluation["data"]["hash"]
    yield (
        f"By `mlx-faceau evaluate`: {header(evaluation)}. SHA-256 of the labels and of eight "
        f"images: `{data}`. {_what_ran(evaluation['model'])}"
    )
    if evaluation["trained_on"] or data in trained_on:
        yield (
            "**The net was trained on some of these very faces**: the figures do not say what it "
            "does on other people's."
        )
    boxes = evaluation["boxes"]
    columns = {"net": evaluation["net"], "jittered": evaluation["jittered"]}
    columns |= {boxes["name"]: boxes["metrics"]} if boxes else {}
    columns[_CONSTANT] = evaluation["constant"]
    yield from _tables(evaluation["kind"], columns, evaluation["intervals"])
    if parts := evaluation.get("breakdown"):
        yield _breakdown(evaluation["kind"], parts)
    yield "\n".join(f"- {line}" for line in notes(_Record({**evaluation, "trained_on": False})))


def _what_ran(model: Mapping[str, Any]) -> str:
    """The file whose answers were measured: an exported one may answer otherwise than its net."""
    file = PurePath(model["file"])
    plain = "float32" if file.suffix in (".safetensors", ".pt") else "precision not recorded"
    return (
        f"What was measured is `{file.name}` ({model.get('precision') or plain}), run by the "
        f"{model['backend']} backend; files of another precision answer a little differently."
    )


def _tables(kind: str, columns: Columns, intervals: Mapping[str, Any]) -> Iterator[str]:
    rows = _figure_rows(_FIGURES[kind], columns, intervals)
    if kind == "landmark_pose":
        rows += [*_distribution_rows(columns, intervals), *_pose_rows(columns, intervals)]
    yield _table(["", *columns], rows)
    if kind == "au_prediction":
        yield _au_table(columns, intervals.get("aus", {}))


def _figure_rows(
    labels: Mapping[str, str], columns: Columns, intervals: Mapping[str, Any]
) -> list[list[str]]:
    return [
        _row(label, [metrics[key] for metrics in columns.values()], intervals.get(key))
        for key, label in labels.items()
    ]


def _distribution_rows(columns: Columns, intervals: Mapping[str, Any]) -> Iterator[list[str]]:
    """How the landmark errors spread over the faces; a training records their mean alone."""
    labels = {**ced_labels(), "nme": "NME, inter-ocular"}
    for key in [key for key in labels if key in columns["net"]]:
        values = [100 * metrics[key] for metrics in columns.values()]
        within = [100 * end for end in intervals.get(key, ())]
        yield _row(f"{labels[key]}, in %", values, within, 2)


def _pose_rows(columns: Columns, intervals: Mapping[str, Any]) -> Iterator[list[str]]:
    within = intervals.get("pose", {})
    for angle in columns["net"]["pose"]:
        values = [metrics["pose"][angle] for metrics in columns.values()]
        yield _row(f"pose error, {angle}, degrees", values, within.get(angle), 2)


def _au_table(columns: Columns, intervals: Mapping[str, Any]) -> str:
    constant = columns.get(_CONSTANT)
    rows = []
    for name in AU_NAMES:
        figures = columns["net"]["aus"][name]
        values = [figures[key] for key in ("r", "ccc", "icc31", "mae")]
        values.append(None if constant is None else constant["aus"][name]["mae"])
        row = _row(au_label(name), values, intervals.get(name, {}).get("r"))
        rows.append([*row, str(figures["support"])])
    heads = ["action unit", "r", "CCC", "ICC(3,1)", "MAE", "constant's MAE", "faces above 1"]
    return _table(heads, rows)


def _breakdown(kind: str, parts: Iterable[Mapping[str, Any]]) -> str:
    headings = breakdown_headings(kind)
    rows = []
    for part in parts:
        # JSON has no NaN, and says null.
        known = _Record({k: math.nan if value is None else value for k, value in part.items()})
        label = f"{part['by']} {part['part']}".replace("|", "\\|")
        values = (breakdown_value(known, key) for key in headings)
        rows.append([label, str(part["faces"]), str(part["people"]), *values])
    return _table(["part of the faces", "faces", "people", *headings.values()], rows)


def _row(
    label: str,
    values: Sequence[float | None],
    interval: Sequence[float | None] | None = None,
    digits: int = 3,
) -> list[str]:
    first, *others = (number(value, digits) for value in values)
    return [label, first + _within(interval, digits), *others]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _within(interval: Sequence[float | None] | None, digits: int) -> str:
    if not interval or len(interval) != 2 or None in interval:
        return ""
    return f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"

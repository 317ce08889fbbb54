"""The accuracy that lies recorded beside a checkpoint, as Markdown for its model card.

An evaluation counts where it is of this very checkpoint; else the training history's best epoch.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .facs import AU_DESCRIPTIONS

EVALUATION_NAME = "evaluation.json"
_HISTORY_NAME = "training_history.json"
_CONSTANT = "constant predictor"
_NOT_MEASURED = (
    "Not measured. `mlx-faceau evaluate` with `--output` beside the checkpoint, and an export "
    "after that, put the figures here."
)


def recorded_accuracy(kind: str, source: str, run: Path, folder: Path) -> Iterator[str]:
    """Paragraphs and tables about how good a net is.

    Args:
        kind: of net.
        source: SHA-256 of the checkpoint.
        run: the checkpoint's folder.
        folder: another one in which an evaluation may lie.
    """
    try:
        yield from list(_recorded(kind, source, run, folder))
    except (LookupError, TypeError, ValueError, AttributeError):  # another version's, or damaged
        yield _NOT_MEASURED


def _recorded(kind: str, source: str, run: Path, folder: Path) -> Iterator[str]:
    evaluation = _evaluation(kind, source, run, folder)
    if evaluation is not None:
        yield from _evaluated(evaluation)
        return
    best = _best_epoch(run)
    if best is None:
        yield _NOT_MEASURED
        return
    yield (
        f"On the validation side of the training file (epoch {best['epoch']}), the faces that "
        "chose the epoch: other people's faces will do a little worse."
    )
    yield from _tables(kind, {"net": best["metrics"]}, {})


def _evaluation(kind: str, source: str, run: Path, folder: Path) -> dict[str, Any] | None:
    for place in (folder, run):
        content = _read_json(place / EVALUATION_NAME)
        model = content.get("model")
        same = isinstance(model, dict) and model.get("checkpoint") == source
        if same and content.get("kind") == kind:
            return content
    return None


def _best_epoch(run: Path) -> dict[str, Any] | None:
    epochs = _read_json(run / _HISTORY_NAME).get("epochs") or []
    known = [entry for entry in epochs if entry["validation"]["loss"] is not None]
    best: dict[str, Any] | None = min(
        known, key=lambda entry: float(entry["validation"]["loss"]), default=None
    )
    return best


def _read_json(path: Path) -> dict[str, Any]:
    """What a file of ours holds; nothing where there is none or it is damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _evaluated(evaluation: Mapping[str, Any]) -> Iterator[str]:
    people = f"{evaluation['faces']:,} faces of {evaluation['people']:,} {evaluation['people_by']}s"
    if evaluation["trained_on"]:
        yield f"On {people} **that the net was trained on**: not what it does on other people."
    else:
        data = evaluation["data"]["hash"]
        yield f"On {people} (data SHA-256 `{data}`), by `mlx-faceau evaluate`."
    boxes = evaluation["boxes"]
    columns = {"net": evaluation["net"], "jittered": evaluation["jittered"]}
    columns |= {boxes["name"]: boxes["metrics"]} if boxes else {}
    columns[_CONSTANT] = evaluation["constant"]
    yield from _tables(evaluation["kind"], columns, evaluation["intervals"])
    yield (
        "In brackets 95 % of the resamples of people. Jittered: crops shifted up to 5 % of the "
        "side, scaled up to 10 %, turned up to 10 degrees."
        + (f" {boxes['name']}: {boxes['about']}." if boxes else "")
    )


def _tables(
    kind: str, columns: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any]
) -> Iterator[str]:
    rows = {"correlation": "AU correlation, mean of each unit's r", "mae": "AU MAE"}
    if kind == "landmark_pose":
        rows = {
            "correlation": "landmark correlation",
            "correlation_without_mean": "without the mean face",
            "mae": "landmark MAE, px",
            "nme": "NME, inter-ocular",
        }
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for key, label in rows.items():
        first, *others = (_number(metrics[key]) for metrics in columns.values())
        lines.append(f"| {label} | {' | '.join([first + _within(intervals.get(key)), *others])} |")
    yield "\n".join(lines)
    if kind == "au_prediction":
        yield "\n".join(_au_lines(columns, intervals.get("aus", {})))


def _au_lines(
    columns: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any]
) -> Iterator[str]:
    constant = columns.get(_CONSTANT)
    yield "| action unit | r | CCC | ICC(3,1) | MAE | constant's MAE | faces above 1 |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, figures in columns["net"]["aus"].items():
        within = _within(intervals.get(name, {}).get("r"))
        values = [_number(figures[key]) for key in ("r", "ccc", "icc31", "mae")]
        known = "-" if constant is None else _number(constant["aus"][name]["mae"])
        label = f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"
        cells = [values[0] + within, *values[1:], known, str(figures["support"])]
        yield f"| {label} | {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _within(interval: list[float | None] | None) -> str:
    if not interval or interval[0] is None or interval[1] is None:
        return ""
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]"

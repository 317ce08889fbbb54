"""Tables of an evaluation: one model, shown as text, Markdown or (by a template) HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_faceau.core.facs import AU_DESCRIPTIONS
from mlx_faceau.core.metrics import MINIMUM_SUPPORT

Metrics = Mapping[str, Any]
_LANDMARK_SUMMARY = {
    "correlation": "landmark correlation",
    "correlation_without_mean": "landmark correlation without the mean face",
    "mae": "landmark MAE, px",
    "nme": "NME, inter-ocular, %",
    "failure_rate_8": "failures (NME over 8 %), %",
    "auc_8": "AUC up to 8 %, %",
    "failure_rate_10": "failures (NME over 10 %), %",
    "auc_10": "AUC up to 10 %, %",
}
_AU_SUMMARY = {"correlation": "AU correlation (mean r)", "mae": "AU MAE"}
_PERCENT = {"nme", "failure_rate_8", "auc_8", "failure_rate_10", "auc_10"}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first heading names what the rows are, the first cell of a row the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Aligned for a terminal: first column to the left, the others to the right."""
        lines = [self.columns, *self.rows]
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        return "\n".join(
            "  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip()
            for row in lines
        )

    def markdown(self) -> str:
        """A GitHub table; vertical bars in cells are escaped."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        escaped = ([cell.replace("|", "\\|") for cell in row] for row in lines)
        return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or ``-`` where there is none (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def with_interval(
    value: float | None, interval: Sequence[float | None] | None, digits: int = 3
) -> str:
    """A figure with its confidence interval, where there is one: ``0.637 [0.610, 0.660]``."""
    known = interval and all(end is not None and not math.isnan(end) for end in interval)
    ends = ", ".join(number(end, digits) for end in interval) if known and interval else ""
    return f"{number(value, digits)} [{ends}]" if ends else number(value, digits)


def au_label(name: str) -> str:
    """``AU12 Lip Corner Puller`` for ``AU12_r``."""
    return f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"


def accuracy_tables(
    kind: str, conditions: Mapping[str, Metrics], intervals: Metrics | None = None
) -> list[Table]:
    """A summary of a net's metrics; then one table by part of the face, or by action unit.

    ``conditions`` holds metrics (see :mod:`mlx_faceau.core.metrics`) by the name of their column,
    first those of the net itself on standard crops, which the ``intervals`` are of, by metric.
    """
    intervals = intervals or {}
    if kind == "au_prediction":
        return [
            _summary(_AU_SUMMARY, conditions, intervals),
            action_unit_table(conditions, intervals.get("aus") or {}),
        ]
    tables = [_summary(_LANDMARK_SUMMARY, conditions, intervals)]
    net = next(iter(conditions.values()))
    if "groups" in net:
        parts = [
            [
                name.replace("_", " "),
                *(number(m["groups"][name]["mae"], 2) for m in conditions.values()),
            ]
            for name in net["groups"]
        ]
        tables.append(Table(["landmark MAE, px", *conditions], parts))
    if "global_correlation" in net:
        names = ("scale", "rx", "ry", "rz", "tx", "ty")
        rows = [[n, number(r)] for n, r in zip(names, net["global_correlation"], strict=False)]
        local = [0.0 if r is None or math.isnan(r) else r for r in net["local_correlation"]]
        rows.append(["local parameters, mean", number(sum(local) / len(local))])
        tables.append(Table(["PDM parameters", "r"], rows))
    return tables


def action_unit_table(
    conditions: Mapping[str, Metrics], intervals: Mapping[str, Metrics] | None = None
) -> Table:
    """Agreement by action unit, with intervals by action unit; else as :func:`accuracy_tables`.

    Of conditions after the first r is shown, of one called ``constant`` the MAE.
    """
    (_, net), *others = conditions.items()
    keys = ["mae" if name == "constant" else "r" for name, _ in others]
    heads = ["MAE constant" if name == "constant" else f"r {name}" for name, _ in others]
    rows = []
    for name, figures in net["aus"].items():
        within = (intervals or {}).get(name, {})
        few = "" if figures["support"] >= MINIMUM_SUPPORT else " (few)"
        rows.append(
            [
                au_label(name),
                *(with_interval(figures[key], within.get(key)) for key in ("r", "ccc")),
                number(figures["icc31"]),
                with_interval(figures["mae"], within.get("mae")),
                *(number(m["aus"][name][key]) for (_, m), key in zip(others, keys, strict=True)),
                f"{figures['support']}{few}",
            ]
        )
    return Table(["action unit", "r", "CCC", "ICC(3,1)", "MAE", *heads, "faces above 1"], rows)


def _summary(
    labels: Mapping[str, str], conditions: Mapping[str, Metrics], intervals: Metrics
) -> Table:
    net = next(iter(conditions.values()))
    rows = []

    def add(label: str, key: str, within: Sequence[Metrics], ends: Metrics, digits: int) -> None:
        factor = 100 if key in _PERCENT else 1
        first, *others = (None if m[key] is None else factor * m[key] for m in within)
        interval = [None if end is None else factor * end for end in ends.get(key) or ()]
        shown = [with_interval(first, interval, digits), *(number(v, digits) for v in others)]
        rows.append([label, *shown])

    for key, label in labels.items():
        if key in net:
            add(label, key, [*conditions.values()], intervals, 2 if key in _PERCENT else 3)
    for angle in net.get("pose") or ():
        poses = [metrics["pose"] for metrics in conditions.values()]
        add(f"pose error, {angle}, degrees", angle, poses, intervals.get("pose") or {}, 2)
    return Table(["accuracy", *conditions], rows)

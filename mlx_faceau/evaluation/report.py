"""An evaluation as tables, these as text and one HTML page; and as one picture."""

import base64
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.metrics import MINIMUM_SUPPORT
from mlx_faceau.errors import BrokenLibrary, MissingDependency
from mlx_faceau.output.plotting import new_figure
from mlx_faceau.output.tables import Table, accuracy_tables, number, with_interval
from mlx_faceau.output.templates import write_page

from .bootstrap import BY_FACE, RESAMPLES
from .evaluate import BOUNDS, CURVE_END, HEADINGS, JITTERED_MAE, TARGETS, Evaluation

_LOG = logging.getLogger(__name__)
VERDICTS = {
    "aim": "pass (aim)",
    "must": "pass (must)",
    "missed": "FAIL",
    "unmeasured": "FAIL (not measurable)",
    "unbeaten": "FAIL (no better than constant)",
}
_COLOURS = {"net": "#0072b2", "jittered": "#e69f00", "constant": "#999999"}
_BOXES = "#009e73"
_FEWEST = 5  # faces of a true intensity whose mean prediction is drawn


def tables(evaluation: Evaluation) -> list[Table]:
    """All tables, the targets first."""
    found = accuracy_tables(evaluation.kind, evaluation.conditions(), evaluation.intervals)
    if evaluation.kind == "au_prediction":
        del found[0]  # the targets name the same figures
    return [_target_table(evaluation), *found, _breakdown_table(evaluation)]


def as_text(evaluation: Evaluation) -> str:
    """What ``mlx-faceau evaluate`` prints."""
    shown = [table.text() for table in tables(evaluation)]
    return "\n\n".join([header(evaluation), *shown, "\n".join(notes(evaluation))])


def write_report(evaluation: Evaluation, title: str, path: Path, picture: Path | None) -> None:
    """Write one HTML page that needs no other file, with a PNG inside; whole or not at all."""
    write_page(
        path,
        "evaluation.html",
        title=title,
        header=header(evaluation),
        tables=tables(evaluation),
        notes=notes(evaluation),
        text=as_text(evaluation),
        picture=picture and base64.b64encode(picture.read_bytes()).decode(),
    )


def header(evaluation: Evaluation) -> str:
    """How many faces of how many subjects, and how many more the file holds."""
    faces, subjects, by = evaluation.faces, evaluation.subjects, evaluation.subjects_by
    out = evaluation.left_out
    rest = f"; {out:,} of the file's {faces + out:,} faces LEFT OUT" if out else ""
    if by == BY_FACE:
        return f"{faces:,} faces; the file names neither subjects nor videos{rest}"
    return f"{faces:,} faces of {subjects:,} {by}{'s' if subjects > 1 else ''}{rest}"


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader of the tables must know."""
    landmarks = evaluation.kind == "landmark_pose"
    worst = (
        f"{w['row']} ({100 * w['error']:.0f} %)" if landmarks else f"{w['row']} ({w['error']:.2f})"
        for w in evaluation.worst
    )
    lines = [
        f"[ ]: 95 % bootstrap confidence intervals ({RESAMPLES} resamples of the "
        f"{evaluation.subjects_by}s)"
        if evaluation.intervals
        else "no confidence intervals: that takes two subjects",
        "jittered: shifted up to 5 % of the side, scaled up to 10 %, rotated up to 10 degrees",
        "constant: a predictor that outputs the training means for every face",
        f"largest errors, rows of the file: {', '.join(worst)}",
    ]
    if evaluation.boxes is not None:
        lines.append(f"{evaluation.boxes['name']}: {evaluation.boxes['about']}")
    if landmarks:
        lines.append(
            "without the mean face: shifted faces lie farther from it, which raises r; do not "
            "compare the columns"
        )
        if evaluation.other_pdm:
            lines.append(
                f"the labels' PDM ({evaluation.other_pdm}) is not the net's: do not compare local "
                "parameters, and scale and pose only roughly"
            )
    elif evaluation.net["constant"]:
        lines.append(f"outputs that never change: {', '.join(evaluation.net['constant'])}")
    if evaluation.left_out:
        lines.append(
            "left out: faces with a landmark outside the crop, which --keep-outside evaluates too, "
            "or without a map to it"
        )
    if evaluation.subjects_by == BY_FACE:
        lines.append("each face counts as a subject: if subjects repeat, the [ ] are too narrow")
    if evaluation.means_from == "evaluation":
        lines.append("constant: the model records no training means; these faces' own are used")
    if evaluation.trained_on:
        lines.append(
            "THE NET WAS TRAINED ON FACES OF THIS FILE: the figures say nothing about other people"
        )
    return lines


def _target_table(evaluation: Evaluation) -> Table:
    conditions, grades = evaluation.conditions(), evaluation.grades()
    rows = []
    for target in TARGETS[evaluation.kind]:
        net, *others = (metrics[target.metric] for metrics in conditions.values())
        sign = ">" if target.higher else "<"
        rows.append(
            [
                target.label,
                with_interval(net, evaluation.intervals.get(target.metric)),
                *map(number, others),
                f"{sign} {target.must:g}",
                f"{sign} {target.aim:g}",
                VERDICTS[grades[target.metric]],
            ]
        )
    if JITTERED_MAE.metric in grades:
        values = [number(evaluation.jittered["mae"]) if c == "jittered" else "" for c in conditions]
        verdict = VERDICTS[grades[JITTERED_MAE.metric]]
        rows.append([JITTERED_MAE.label, *values, f"< {JITTERED_MAE.must:g}", "", verdict])
    return Table(["target", *conditions, "must", "aim", "verdict"], rows)


def _breakdown_table(evaluation: Evaluation) -> Table:
    headings = HEADINGS[evaluation.kind]
    rows = []
    for part in evaluation.breakdown:
        cells = [f"{part['by']} {part['part']}", str(part["faces"]), str(part["subjects"])]
        for key in headings:
            factor = 100 if key in ("nme", "failure_rate_8") else 1
            cells.append(number(factor * part[key], 0 if key == "counted" else 2))
        rows.append(cells)
    return Table(["part of the faces", "faces", "subjects", *headings.values()], rows)


def draw_evaluation(evaluation: Evaluation, path: Path) -> Path | None:
    """Draw the evaluation as PNG; returns None without matplotlib (which is logged)."""
    try:
        figure = new_figure(13, 5)
    except (MissingDependency, BrokenLibrary) as error:
        _LOG.warning("no picture drawn: %s", error)
        return None
    curves, bars = figure.subplots(1, 2)
    if evaluation.kind == "landmark_pose":
        _draw_error_curves(curves, evaluation)
        groups = {name: metrics["groups"] for name, metrics in evaluation.conditions().items()}
        columns = {name: [m["mae"] for m in parts.values()] for name, parts in groups.items()}
        labels = [group.replace("_", " ") for group in groups["net"]]
        _draw_columns(bars, "landmark MAE, px", labels, columns)
    else:
        _draw_responses(curves, evaluation)
        names = list(evaluation.net["aus"])
        columns = {
            name: [metrics["aus"][au]["r"] for au in names]
            for name, metrics in evaluation.conditions().items()
            if name != "constant"
        }
        within = evaluation.intervals.get("aus", {})
        intervals = [within.get(au, {}).get("r") for au in names]
        few = [evaluation.net["aus"][au]["support"] < MINIMUM_SUPPORT for au in names]
        labels = [au.removesuffix("_r") + "*" * rare for au, rare in zip(names, few, strict=True)]
        title = "Pearson's r (* too few faces for the mean)"
        _draw_columns(bars, title, labels, columns, intervals)
    figure.suptitle(header(evaluation))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_error_curves(axes: Any, evaluation: Evaluation) -> None:
    curves = {key: 100 * np.array(curve) for key, curve in evaluation.curves.items()}
    bounds = curves.pop("nme")
    conditions = evaluation.conditions()
    for (name, metrics), shares in zip(conditions.items(), curves.values(), strict=True):
        label = f"{name}: {100 * metrics['failure_rate_8']:.1f} % over {100 * BOUNDS[0]:.0f} %"
        axes.plot(bounds, shares, color=_COLOURS.get(name, _BOXES), label=label)
    for bound in BOUNDS:
        axes.axvline(100 * bound, color="#bbbbbb", lw=0.8, ls="--")
    axes.set(xlim=(0, 100 * CURVE_END), ylim=(0, 100.5), title="cumulative error distribution")
    axes.set(xlabel="NME, % of the inter-ocular distance", ylabel="faces, %")
    axes.legend(fontsize=8)


def _draw_responses(axes: Any, evaluation: Evaluation) -> None:
    """Mean prediction by true intensity: of each action unit, and of all."""
    levels = np.arange(MAX_INTENSITY + 1)
    counts = np.array([curve["count"] for curve in evaluation.curves.values()])
    means = np.array([curve["mean"] for curve in evaluation.curves.values()])
    for count, mean in zip(counts, means, strict=True):
        axes.plot(levels[count >= _FEWEST], mean[count >= _FEWEST], color="#bbbbbb", lw=0.9)
    total = counts.sum(axis=0)
    overall = (np.nan_to_num(means) * counts).sum(axis=0) / np.maximum(total, 1)
    known = total >= _FEWEST
    axes.plot(levels[known], overall[known], "o-", color=_COLOURS["net"], label="all action units")
    axes.plot([], [], color="#bbbbbb", label=f"one action unit ({_FEWEST} faces or more)")
    axes.plot(levels, levels, color=_COLOURS["constant"], lw=0.8, ls="--", label="label")
    axes.set(title="prediction by true intensity", xlabel="label, nearest whole intensity")
    axes.set(ylabel="mean prediction", ylim=(0, MAX_INTENSITY))
    axes.legend(fontsize=8)


def _draw_columns(
    axes: Any,
    title: str,
    labels: Sequence[str],
    columns: Mapping[str, Sequence[float]],
    intervals: Sequence[Sequence[float] | None] = (),
) -> None:
    """The net as bars with its confidence intervals, the other conditions as dots."""
    places = np.arange(len(labels))
    for name, values in columns.items():
        colour = _COLOURS.get(name, _BOXES)
        if name == "net":
            axes.bar(places, values, 0.6, color=colour, label=name)
        else:
            axes.plot(places, values, "o", ms=5, color=colour, mec="white", label=name)
    for place, ends in enumerate(intervals):
        if ends is not None:
            axes.plot([place, place], ends, color="black", lw=1.2)
    axes.set_xticks(places, labels, rotation=45)
    axes.set(title=title, xlim=(-0.6, len(labels) - 0.4))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)

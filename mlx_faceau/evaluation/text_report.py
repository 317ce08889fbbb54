"""An evaluation as text: targets first, then every part of the face or every action unit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlx_faceau.core.facs import AU_DESCRIPTIONS
from mlx_faceau.core.metrics import MINIMUM_SUPPORT

from .bootstrap import RESAMPLES
from .ced import BOUNDS
from .subjects import BY_FACE
from .targets import JITTERED_MAE, TARGETS

if TYPE_CHECKING:
    from .evaluate import Report

GLOBAL_NAMES = ("scale", "rx", "ry", "rz", "tx", "ty")
VERDICTS = {
    "aim": "pass (aim)",
    "must": "pass (must)",
    "missed": "FAIL",
    "unmeasured": "FAIL (not measurable)",
}


def format_report(report: "Report") -> str:
    """The tables that ``mlx-faceau evaluate`` prints."""
    lines = [header(vars(report)), "", *_target_lines(report), ""]
    lines += _landmark_lines(report) if report.kind == "landmark_pose" else _au_lines(report)
    lines += ["", *_breakdown_lines(report), "", _worst_line(report), *notes(vars(report))]
    return "\n".join(lines)


def header(record: Mapping[str, Any]) -> str:
    """How many faces of how many people, and how many more the file holds.

    Args:
        record: attributes of a Report by name, or what ``evaluation.json`` holds, be it older.
    """
    faces, people, by = record["faces"], record["people"], record["people_by"]
    out = record.get("left_out", 0)
    rest = f"; {out:,} of the file's {faces + out:,} faces LEFT OUT" if out else ""
    if by == BY_FACE:
        return f"{faces:,} faces; the file names neither subjects nor videos{rest}"
    return f"{faces:,} faces of {people:,} {by}{'s' if people > 1 else ''}{rest}"


def notes(record: Mapping[str, Any]) -> list[str]:
    """What a reader of the tables must know; ``record`` as for :func:`header`."""
    lines = [
        f"[ ]: 95 % of {RESAMPLES} resamples of the {record['people_by']}s"
        if record["intervals"]
        else "no confidence intervals: that takes two people",
        "jittered: shifted up to 5 % of the side, scaled up to 10 %, turned up to 10 degrees",
    ]
    if record["boxes"] is not None:
        lines.append(f"{record['boxes']['name']}: {record['boxes']['about']}")
    if record["kind"] == "landmark_pose":
        lines.append(
            "without the mean face: moved faces lie farther from it, which raises r; do not "
            "compare the columns"
        )
    if record.get("left_out"):
        lines.append(
            "left out: faces with a landmark outside the crop, which --keep-outside evaluates too, "
            "or without a map to it"
        )
    if record["people_by"] == BY_FACE:
        lines.append("every face counts as a person: if people repeat, the [ ] are too narrow")
    if record["means_from"] == "evaluation":
        lines.append("constant: the model records no training means; these faces' own are used")
    if record["trained_on"]:
        lines.append(
            "THE NET WAS TRAINED ON FACES OF THIS FILE: this says nothing about people it has not "
            "seen"
        )
    return lines


def format_action_units(metrics: Mapping[str, Any]) -> str:
    """A table of the action units' metrics in one epoch, as the history records them."""
    lines = [f"{'action unit':28}{'r':>8}{'CCC':>8}{'MAE':>8}{'faces > 1':>11}"]
    for name, figures in metrics["aus"].items():
        lines.append(
            f"{au_label(name):28}{number(figures['r']):>8}{number(figures['ccc']):>8}"
            f"{figures['mae']:8.3f}{figures['support']:11d}"
        )
    return "\n".join(lines)


def au_label(name: str) -> str:
    """``AU12 Lip Corner Puller`` for ``AU12_r``."""
    return f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or ``-`` where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def spread(interval: Sequence[float] | None, digits: int = 3) -> str:
    """``[low high]``, or nothing."""
    if interval is None or math.isnan(interval[0]):
        return ""
    return f"[{number(interval[0], digits)} {number(interval[1], digits)}]"


def conditions(report: "Report") -> dict[str, dict[str, Any]]:
    """Metrics by the name of the column that shows them; the plain net's come first."""
    boxes = {} if report.boxes is None else {report.boxes["name"]: report.boxes["metrics"]}
    return {
        "net": report.net,
        "jittered": report.jittered,
        **boxes,
        "constant": report.constant,
    }


def moved_constants(report: "Report") -> dict[str, dict[str, float]]:
    """Errors of the constant predictor, MAE in px and angles in degrees, by the column's name."""
    moved = list(conditions(report))[1:-1]
    return {
        name: {"MAE px": metrics["mae"], **metrics["pose"]}
        for name, metrics in zip(moved, report.constant_moved.values(), strict=True)
    }


def _target_lines(report: "Report") -> Iterator[str]:
    columns = conditions(report)
    others = "".join(f"{name:>13}" for name in list(columns)[1:])
    yield f"{'':26}{'net':>8} {'':16}{others}   must    aim     verdict"
    grades = report.grades()
    for target in TARGETS[report.kind]:
        net, *rest = (number(metrics[target.metric]) for metrics in columns.values())
        within = spread(report.intervals.get(target.metric))
        sign = ">" if target.higher else "<"
        yield (
            f"{target.label:26}{net:>8} {within:16}{''.join(f'{value:>13}' for value in rest)}   "
            f"{sign} {target.must:<6g}{sign} {target.aim:<6g}{VERDICTS[grades[target.metric]]}"
        )
    if JITTERED_MAE.metric in grades:
        blank = " " * (25 + 13 * (len(columns) - 1))
        bound, verdict = JITTERED_MAE.must, VERDICTS[grades[JITTERED_MAE.metric]]
        yield f"{JITTERED_MAE.label:26}{blank}   < {bound:<14g}{verdict}"


def _landmark_lines(report: "Report") -> Iterator[str]:
    columns = conditions(report)
    yield f"{'NME, inter-ocular':26}" + "".join(f"{name:>13}" for name in columns)
    for key, label in ced_labels().items():
        values = (f"{100 * metrics[key]:.2f} %" for metrics in columns.values())
        yield f"{label:26}" + "".join(f"{value:>13}" for value in values)
    yield ""
    yield f"{'landmarks':16}{'MAE px':>9}{'constant':>10}{'NME %':>9}{'constant':>10}"
    for name, errors in report.net["groups"].items():
        yield _landmark_line(name, errors, report.constant["groups"][name])
    yield _landmark_line("all", report.net, report.constant)
    yield ""
    yield from _pose_lines(report)


def ced_labels() -> dict[str, str]:
    """Figures of the error distribution by key, and what to call them."""
    labels = {"nme": "mean"}
    for percent in (round(100 * bound) for bound in BOUNDS):
        labels[f"failure_rate_{percent}"] = f"failures (over {percent} %)"
        labels[f"auc_{percent}"] = f"AUC up to {percent} %"
    return labels


def _landmark_line(name: str, errors: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    return (
        f"{name:16}{errors['mae']:9.2f}{known['mae']:10.2f}"
        f"{100 * errors['nme']:9.2f}{100 * known['nme']:10.2f}"
    )


def _pose_lines(report: "Report") -> Iterator[str]:
    columns = {name: metrics["pose"] for name, metrics in conditions(report).items()}
    within = report.intervals.get("pose", {})
    names = "".join(f"{name:>13}" for name in columns)
    yield f"{'pose error, degrees':22}{names}"
    for angle in report.net["pose"]:
        values = "".join(f"{pose[angle]:13.2f}" for pose in columns.values())
        yield f"{angle:22}{values}   {spread(within.get(angle), 2)}"
    yield ""
    yield from _moved_constant_lines(report)
    net, constant = report.net, report.constant
    yield ""
    correlations = zip(GLOBAL_NAMES, net["global_correlation"], strict=False)
    yield "r of global parameters: " + "  ".join(f"{n} {number(r)}" for n, r in correlations)
    local = [0.0 if math.isnan(r) else r for r in net["local_correlation"]]
    yield (
        f"local parameters: mean r {sum(local) / len(local):.3f}, MAE {net['local_mae']:.3f} "
        f"(constant {constant['local_mae']:.3f})"
    )


def _moved_constant_lines(report: "Report") -> Iterator[str]:
    rows = moved_constants(report)
    heads = "".join(f"{key:>13}" for key in rows["jittered"])
    yield f"{'constant, moved crops':22}{heads}"
    for name, errors in rows.items():
        yield f"{name:22}" + "".join(f"{value:13.2f}" for value in errors.values())


def _au_lines(report: "Report") -> Iterator[str]:
    columns = {name: metrics["aus"] for name, metrics in conditions(report).items()}
    moved = [name for name in columns if name not in ("net", "constant")]
    others = "".join(f"{'r ' + name:>14}" for name in moved)
    yield (
        f"{'action unit':27}{'r':>7} {'':16}{'CCC':>6}{'ICC(3,1)':>10}{'MAE':>7} {'':14}"
        f"{'constant':>8}{others}{'faces > 1':>11}"
    )
    for name, figures in report.net["aus"].items():
        within = report.intervals.get("aus", {}).get(name, {})
        few = "" if figures["support"] >= MINIMUM_SUPPORT else "  too few for the mean"
        others = "".join(f"{number(columns[other][name]['r']):>14}" for other in moved)
        yield (
            f"{au_label(name):27}{number(figures['r']):>7} {spread(within.get('r')):16}"
            f"{number(figures['ccc']):>6}{number(figures['icc31']):>10}{figures['mae']:7.3f} "
            f"{spread(within.get('mae'), 2):14}{columns['constant'][name]['mae']:8.3f}"
            f"{others}{figures['support']:11d}{few}"
        )
    dead = report.net["constant"]
    yield f"constant outputs: {len(dead)}" + (f" ({', '.join(dead)})" if dead else "")


def _breakdown_lines(report: "Report") -> Iterator[str]:
    headings = breakdown_headings(report.kind)
    yield f"{'part of the faces':28}{'faces':>7}{'people':>8}" + "".join(
        f"{label:>12}" for label in headings.values()
    )
    for row in report.breakdown:
        values = "".join(f"{breakdown_value(row, key):>12}" for key in headings)
        label = f"{row['by']} {row['part']}"
        yield f"{label:28}{row['faces']:7d}{row['people']:8d}{values}"


def breakdown_headings(kind: str) -> dict[str, str]:
    """Keys of a breakdown's rows, and what heads their column."""
    if kind == "landmark_pose":
        return {
            "mae": "MAE px",
            "constant_mae": "constant",
            "correlation_without_mean": "r, no mean",
            "nme": "NME %",
            "failure_rate_8": "over 8 %",
            "pose": "pose, deg",
        }
    return {
        "mae": "MAE",
        "constant_mae": "constant",
        "correlation": "mean r",
        "counted": "over AUs",
    }


def breakdown_value(row: Mapping[str, Any], key: str) -> str:
    """One cell of the breakdown."""
    if key == "counted":
        return number(row[key], 0)
    return number(100 * row[key] if key in ("nme", "failure_rate_8") else row[key], 2)


def _worst_line(report: "Report") -> str:
    percent = report.kind == "landmark_pose"
    shown = (
        f"{w['row']} ({100 * w['error']:.0f} %)" if percent else f"{w['row']} ({w['error']:.2f})"
        for w in report.worst
    )
    return "worst faces, rows of the file: " + ", ".join(shown)

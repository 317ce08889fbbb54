"""An evaluation as tables; these as text and as one HTML page."""

import base64
from pathlib import Path

from mlx_faceau.output.tables import Table, accuracy_tables, number, with_interval
from mlx_faceau.output.templates import write_page

from .bootstrap import BY_FACE, RESAMPLES
from .breakdown import HEADINGS
from .evaluate import Evaluation
from .targets import JITTERED_MAE, TARGETS

VERDICTS = {
    "aim": "pass (aim)",
    "must": "pass (must)",
    "missed": "FAIL",
    "unmeasured": "FAIL (not measurable)",
}


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
    """Write one HTML page that needs no other file, with a PNG inside; whole or not at all.

    Raises:
        MissingDependency: without jinja2.
        OSError: if it cannot be written.
    """
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

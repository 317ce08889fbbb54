"""An evaluation as one HTML page; tables and picture are inside, so it opens without a network."""

import base64
import html
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.metrics import MINIMUM_SUPPORT

from .evaluate import Report
from .targets import JITTERED_MAE, TARGETS
from .text_report import (
    VERDICTS,
    au_label,
    breakdown_headings,
    breakdown_value,
    ced_labels,
    conditions,
    format_report,
    header,
    moved_constants,
    notes,
    number,
    spread,
)

_STYLE = """
:root { color-scheme: light dark; --text: #222; --back: #fff; --faint: #8884; --good: #00734f;
  --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --back: #181a1b; --good: #4cc79a;
  --bad: #ff8a80 } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem;
  padding: 0 1rem; color: var(--text); background: var(--back) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap } th:first-child { text-align: left; font-weight: 400 }
thead th { border-bottom: 1px solid var(--faint); font-weight: 600 }
small { opacity: .7 } .pass { color: var(--good) } .fail { color: var(--bad); font-weight: 600 }
img { max-width: 100%; background: #fff; border-radius: 4px }
pre { overflow-x: auto; font-size: 12px } li { margin: .2rem 0 }
"""

Row = Iterable[str]


def write_page(report: Report, title: str, path: Path, picture: Path | None) -> None:
    """Write the page, whole or not at all.

    Args:
        report: what it tells.
        title: the model and the data.
        path: ends with ``.html``.
        picture: a PNG to put inside; None for none.

    Raises:
        OSError: if it cannot be written.
    """
    body = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(header(vars(report)))}</p>",
        _table("Targets", _target_head(report), _target_rows(report)),
        _image(picture),
        *_tables(report),
        _table("Parts of the faces", _breakdown_head(report), _breakdown_rows(report)),
        "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in notes(vars(report))) + "</ul>",
        f"<details><summary>As text</summary><pre>{html.escape(format_report(report))}</pre>",
        "</details>",
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _image(picture: Path | None) -> str:
    if picture is None:
        return ""
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<p><img alt="the figures below, drawn" src="data:image/png;base64,{data}"></p>'


def _table(caption: str, head: Row, rows: Iterable[Row]) -> str:
    """A table of cells that are HTML already."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _with_interval(value: str, interval: list[float] | None, digits: int = 3) -> str:
    within = spread(interval, digits)
    return f"{value} <small>{within}</small>" if within else value


def _target_head(report: Report) -> Row:
    return ["", *map(html.escape, conditions(report)), "must", "aim", "verdict"]


def _target_rows(report: Report) -> Iterator[Row]:
    grades = report.grades()
    for target in TARGETS[report.kind]:
        net, *others = (number(metrics[target.metric]) for metrics in conditions(report).values())
        net = _with_interval(net, report.intervals.get(target.metric))
        sign = "&gt;" if target.higher else "&lt;"
        bounds = [f"{sign} {bound:g}" for bound in (target.must, target.aim)]
        yield [target.label.strip(), net, *others, *bounds, _verdict(grades[target.metric])]
    if JITTERED_MAE.metric in grades:
        blank = [""] * len(conditions(report))
        bound = f"&lt; {JITTERED_MAE.must:g}"
        verdict = _verdict(grades[JITTERED_MAE.metric])
        yield [JITTERED_MAE.label.strip(), *blank, bound, "", verdict]


def _verdict(grade: str) -> str:
    passed = grade in ("aim", "must")
    return f'<span class="{"pass" if passed else "fail"}">{VERDICTS[grade]}</span>'


def _tables(report: Report) -> Iterator[str]:
    names = [html.escape(name) for name in conditions(report)]
    if report.kind == "au_prediction":
        moved = [f"r {name}" for name in names[1:-1]]
        head = ["", "r", "CCC", "ICC(3,1)", "MAE", "MAE, constant", *moved, "faces &gt; 1"]
        yield _table("Action units", head, _au_rows(report))
        return
    yield _table("NME, inter-ocular, %", ["", *names], _nme_rows(report))
    yield _table("Landmark MAE, px", ["", *names], _group_rows(report))
    if report.net["pose"]:
        yield _table("Pose error, degrees", ["", *names], _pose_rows(report))
    heads = next(iter(moved_constants(report).values()))
    yield _table("Constant predictor on moved crops", ["", *heads], _moved_constant_rows(report))


def _nme_rows(report: Report) -> Iterator[Row]:
    for key, label in ced_labels().items():
        yield [label, *(number(100 * m[key], 2) for m in conditions(report).values())]


def _group_rows(report: Report) -> Iterator[Row]:
    for group in report.net["groups"]:
        values = (number(m["groups"][group]["mae"], 2) for m in conditions(report).values())
        yield [group.replace("_", " "), *values]
    yield ["all", *(number(m["mae"], 2) for m in conditions(report).values())]


def _pose_rows(report: Report) -> Iterator[Row]:
    for angle in report.net["pose"]:
        net, *others = (number(m["pose"][angle], 2) for m in conditions(report).values())
        within = report.intervals.get("pose", {}).get(angle)
        yield [angle, _with_interval(net, within, 2), *others]


def _moved_constant_rows(report: Report) -> Iterator[Row]:
    for name, errors in moved_constants(report).items():
        yield [html.escape(name), *(number(value, 2) for value in errors.values())]


def _au_rows(report: Report) -> Iterator[Row]:
    _, *moved, constant = conditions(report).values()
    for name, figures in report.net["aus"].items():
        within = report.intervals.get("aus", {}).get(name, {})
        few = "" if figures["support"] >= MINIMUM_SUPPORT else " <small>too few</small>"
        yield [
            html.escape(au_label(name)),
            *(_with_interval(number(figures[k]), within.get(k)) for k in ("r", "ccc", "icc31")),
            _with_interval(number(figures["mae"]), within.get("mae"), 2),
            number(constant["aus"][name]["mae"]),
            *(number(metrics["aus"][name]["r"]) for metrics in moved),
            f"{figures['support']}{few}",
        ]


def _breakdown_head(report: Report) -> Row:
    return ["", "faces", "people", *breakdown_headings(report.kind).values()]


def _breakdown_rows(report: Report) -> Iterator[Row]:
    keys = breakdown_headings(report.kind)
    for row in report.breakdown:
        values = (breakdown_value(row, key) for key in keys)
        label = html.escape(f"{row['by']} {row['part']}")
        yield [label, str(row["faces"]), str(row["people"]), *values]

"""An evaluation as text: targets first, then every part of the face or every action unit."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_faceau.facs import AU_DESCRIPTIONS
from mlx_faceau.metrics import MINIMUM_SUPPORT

from .evaluate import TARGETS, Report

_GLOBAL = ("scale", "rx", "ry", "rz", "tx", "ty")


def format_report(report: Report) -> str:
    """The tables that ``mlx-faceau evaluate`` prints."""
    lines = [f"{report.faces} faces", "", *_target_lines(report), ""]
    lines += _landmark_lines(report) if report.kind == "landmark_pose" else _au_lines(report)
    if report.means_from == "evaluation":
        lines += ["", "constant: the model records no training means; these faces' own are used"]
    return "\n".join(lines)


def _target_lines(report: Report) -> Iterator[str]:
    yield f"{'':26}{'net':>9}{'jittered':>10}{'constant':>10}   must     aim     reached"
    grades = report.grades()
    for target in TARGETS[report.kind]:
        values = (report.net, report.jittered, report.constant)
        net, jittered, constant = (_number(metrics[target.metric]) for metrics in values)
        sign = ">" if target.higher else "<"
        yield (
            f"{target.label:26}{net:>9}{jittered:>10}{constant:>10}   "
            f"{sign} {target.must:<6g}{sign} {target.aim:<6g}{grades[target.metric]}"
        )
    if "mae_jittered" in grades:
        must = next(t.must for t in TARGETS[report.kind] if t.metric == "mae")
        yield f"{'  the same, jittered':26}{'':29}   < {must:<14g}{grades['mae_jittered']}"


def _landmark_lines(report: Report) -> Iterator[str]:
    yield f"{'landmarks':16}{'MAE px':>9}{'constant':>10}{'NME %':>9}{'constant':>10}"
    for name, errors in report.net["groups"].items():
        known = report.constant["groups"][name]
        yield (
            f"{name:16}{errors['mae']:9.2f}{known['mae']:10.2f}"
            f"{100 * errors['nme']:9.2f}{100 * known['nme']:10.2f}"
        )
    net, constant = report.net, report.constant
    yield (
        f"{'all':16}{net['mae']:9.2f}{constant['mae']:10.2f}"
        f"{100 * net['nme']:9.2f}{100 * constant['nme']:10.2f}"
    )
    yield ""
    yield f"{'pose error':16}{'degrees':>9}{'constant':>10}"
    for angle, error in net["pose"].items():
        yield f"{angle:16}{error:9.2f}{constant['pose'][angle]:10.2f}"
    yield ""
    correlations = zip(_GLOBAL, net["global_correlation"], strict=False)
    yield "r of global parameters: " + "  ".join(f"{n} {_number(r)}" for n, r in correlations)
    local = [0.0 if math.isnan(r) else r for r in net["local_correlation"]]
    yield (
        f"local parameters: mean r {sum(local) / len(local):.3f}, MAE {net['local_mae']:.3f} "
        f"(constant {constant['local_mae']:.3f})"
    )


def format_action_units(metrics: Mapping[str, Any]) -> str:
    """A table of the action units' metrics in one epoch, as the history records them."""
    lines = [f"{'action unit':28}{'r':>8}{'CCC':>8}{'MAE':>8}{'faces > 1':>11}"]
    for name, figures in metrics["aus"].items():
        label = f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"
        lines.append(
            f"{label:28}{_number(figures['r']):>8}{_number(figures['ccc']):>8}"
            f"{figures['mae']:8.3f}{figures['support']:11d}"
        )
    return "\n".join(lines)


def _au_lines(report: Report) -> Iterator[str]:
    yield (
        f"{'action unit':28}{'r':>8}{'CCC':>8}{'ICC(3,1)':>10}{'MAE':>8}{'constant':>10}"
        f"{'faces > 1':>11}"
    )
    for name, figures in report.net["aus"].items():
        constant = report.constant["aus"][name]["mae"]
        label = f"{name.removesuffix('_r')} {AU_DESCRIPTIONS[name]}"
        few = "" if figures["support"] >= MINIMUM_SUPPORT else "  (too few for the mean)"
        yield (
            f"{label:28}{_number(figures['r']):>8}{_number(figures['ccc']):>8}"
            f"{_number(figures['icc31']):>10}{figures['mae']:8.3f}{constant:10.3f}"
            f"{figures['support']:11d}{few}"
        )
    dead = report.net["constant"]
    yield f"constant outputs: {len(dead)}" + (f" ({', '.join(dead)})" if dead else "")


def _number(value: Any) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"

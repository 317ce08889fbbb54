"""The program answers at once. The limits are twice the targets, which benchmarks/startup.py
measures: this is CPU time, but on machines that do other things."""

import statistics
import sys

import pytest
from conftest import REPOSITORY

IMPORT_SECONDS, HELP_SECONDS = 0.1, 0.4


@pytest.fixture(scope="module")
def cpu_seconds() -> dict[str, float]:
    pytest.importorskip("resource")
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        from startup import measure
    finally:
        sys.path.pop(0)
    return {case: statistics.median(cpu for cpu, _ in found) for case, found in measure(5).items()}


def test_the_import_costs_little_more_than_the_interpreter(cpu_seconds: dict[str, float]) -> None:
    excess = cpu_seconds["import mlx_faceau"] - cpu_seconds["bare interpreter"]
    assert excess < IMPORT_SECONDS


def test_help_is_printed_at_once(cpu_seconds: dict[str, float]) -> None:
    assert cpu_seconds["mlx-faceau --help"] < HELP_SECONDS

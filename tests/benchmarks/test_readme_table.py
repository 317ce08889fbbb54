"""The pages' table of speeds holds what the committed results hold."""

import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from readme_table import END, PAGES, START, insert, read_results, table


def row(case: str, milliseconds: float, threads: str = "1") -> dict[str, str]:
    stamp = {"date": "2026-01-02", "machine": "M", "mlx": "1", "torch": "2", "onnxruntime": "3"}
    stamp |= {"cores": "2", "load_at_start": "0.25"}
    what = {"net": "au_prediction", "task": "inference", "batch": "1", "threads": threads}
    return {"case": case, "cpu_ms_median": str(milliseconds), **what, **stamp}


def test_ratios_are_of_one_thread_and_one_run():
    rows = [row("stock mlx", 90), row("ours", 15), row("torch eager", 12), row("ours", 9, "2")]
    lines = table(rows).splitlines()
    assert lines[3] == "| action units, prediction of 1 | 15.0 ms | 6.0 | 1.25 | - |"
    assert len(lines) == 7
    assert "on 2026-01-02: M, 2 cores, load 0.2 to 0.2, MLX 1, torch 2 eager" in lines[5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_show_the_committed_results(page):
    text = page.read_text("utf-8")
    assert insert(text, table(read_results())) == text


def test_a_page_without_the_marks_is_refused():
    assert insert(f"a {START} old {END} b", "new") == "a new b"
    with pytest.raises(ValueError, match="lacks the lines"):
        insert(f"a {START} b", "new")

"""Write the pages' table of speeds from results/*.csv:  python benchmarks/readme_table.py"""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
START, END = "<!-- figures -->", "<!-- end of figures -->"
FILES = ("latency", "throughput", "train_step")
TASKS = {"inference": "prediction", "train_step": "training step"}
NETS = {"landmark_pose": "landmarks and pose", "au_prediction": "action units"}


def read_results(folder: Path = RESULTS) -> list[dict[str, str]]:
    """All rows of the matrix benchmarks' CSV files."""
    rows: list[dict[str, str]] = []
    for name in FILES:
        with (folder / f"{name}.csv").open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """The block between the marks: single-thread CPU time of ours beside the others'."""
    rows = [row for row in rows if row["threads"] == "1"]
    lines = [
        "| on one thread, CPU time | MLX here | stock MLX / here | here / torch | here / ONNX |",
        "|---|---|---|---|---|",
    ]
    for net, name in NETS.items():
        for task, title in TASKS.items():
            for batch in sorted({int(row["batch"]) for row in rows if row["task"] == task}):
                times = _times(rows, net, task, batch)
                if "ours" in times:
                    lines.append(f"| {name}, {title} of {batch} | {_cells(times)} |")
    return "\n".join([START, *lines, "", _stamp(rows), END])


def _times(rows: list[dict[str, str]], net: str, task: str, batch: int) -> dict[str, float]:
    return {
        row["case"]: float(row["cpu_ms_median"])
        for row in rows
        if (row["net"], row["task"], int(row["batch"])) == (net, task, batch)
    }


def _cells(times: dict[str, float]) -> str:
    ours = times["ours"]
    ratios = [times.get("stock mlx"), times.get("torch eager"), times.get("onnxruntime")]
    stock, torch, runtime = ratios
    cells = [f"{ours:.1f} ms", f"{stock / ours:.1f}" if stock else "-"]
    cells += [f"{ours / other:.2f}" if other else "-" for other in (torch, runtime)]
    return " | ".join(cells)


def _stamp(rows: list[dict[str, str]]) -> str:
    row, loads = rows[0], [float(row["load_at_start"]) for row in rows]
    return (
        f"Medians of calls taken in turn on {row['date']}: {row['machine']}, {row['cores']} cores, "
        f"load {min(loads):.1f} to {max(loads):.1f}, MLX {row['mlx']}, torch {row['torch']} eager, "
        f"ONNX Runtime {row['onnxruntime']}. Less is better in the last two columns. "
        "`benchmarks/latency.py`, `throughput.py` and `train_step.py` measure it again; "
        "`benchmarks/results/` has wall times and plots."
    )


def insert(page: str, block: str) -> str:
    """A page's text with the block between the marks.

    Raises:
        ValueError: if the page has not both marks.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the page lacks the lines {START} and {END}")
    return before + block + after


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(insert(page.read_text("utf-8"), table(read_results())), "utf-8")

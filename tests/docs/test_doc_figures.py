"""The table of speeds holds the figures of the CSV files."""

import csv
import re

from doc_pages import DOCS, REPOSITORY

NETS = {"landmarks and pose": "landmark_pose", "action units": "au_prediction"}
TASKS = {"prediction": "inference", "training step": "train_step"}
CASES = ("ours", "torch eager", "onnxruntime", "stock mlx")  # column by column
ROW = re.compile(r"^\| ([a-z ]+), ([a-z ]+) of (\d+) \| (.+) \|$", re.MULTILINE)


def test_the_speeds_are_those_that_were_measured() -> None:
    measured = {}
    for name in ("latency", "throughput", "train_step"):
        with (REPOSITORY / f"benchmarks/results/{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["threads"] == "1":
                    key = (row["net"], row["task"], row["batch"], row["case"])
                    measured[key] = f"{float(row['cpu_ms_median']):.1f}"
    rows = ROW.findall((DOCS / "benchmarks.md").read_text("utf-8"))
    assert len(rows) == 6
    for net, task, batch, cells in rows:
        found = [measured.get((NETS[net], TASKS[task], batch, case), "-") for case in CASES]
        assert cells.split(" | ") == found

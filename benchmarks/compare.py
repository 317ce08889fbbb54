"""Round-robin timing of several cases, one living worker process each; CSV, plot and table.

Calls alternate A B C A B C ..., so that a change of the machine's speed meets all alike. Quote
ratios of medians within one run, not times of different runs.
"""

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Set on some machines for old libraries; they would slow the BLAS that is measured.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
LIBRARIES = ("mlx", "torch", "onnxruntime", "numpy", "opencv-python", "av")


@dataclass
class Worker:
    """One case in its process, and the times it has answered so far (seconds)."""

    case: dict
    process: subprocess.Popen
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @classmethod
    def start(cls, case: dict) -> "Worker":
        environment = {k: v for k, v in os.environ.items() if k not in UNSET}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(case["threads"]))
        environment["MLX_FACEAU_BLAS"] = "off" if case["case"] == "stock mlx" else ""
        if not environment["MLX_FACEAU_BLAS"]:
            del environment["MLX_FACEAU_BLAS"]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        worker = cls(case, process)
        worker.read()
        return worker

    def read(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"the worker of case {self.case} ended; its message stands above")

    def measure(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        times = self.read()
        self.cpu.append(times["cpu"])
        self.wall.append(times["wall"])

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(cases: list[dict], rounds: int) -> list[dict]:
    """Times of cases that belong together, as CSV rows."""
    workers = [Worker.start(case) for case in cases]
    try:
        load = os.getloadavg()[0]
        for _ in range(rounds):
            for worker in workers:
                worker.measure()
    finally:
        for worker in workers:
            worker.stop()
    return [row(worker, rounds, load) for worker in workers]


def row(worker: Worker, rounds: int, load: float) -> dict:
    def milliseconds(seconds: float) -> float:
        return round(1000 * seconds, 3)

    ordered = sorted(worker.wall)
    return {
        **worker.case,
        "rounds": rounds,
        "cpu_ms_median": milliseconds(statistics.median(worker.cpu)),
        "wall_ms_median": milliseconds(statistics.median(worker.wall)),
        "wall_ms_p95": milliseconds(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]),
        "images_per_second": round(worker.case["batch"] / statistics.median(worker.wall), 1),
        "load_at_start": round(load, 2),
    }


def machine_stamp() -> dict[str, str]:
    """What the figures depend on besides the code."""
    stamp = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()} {processor_name()}",
        "cores": str(os.cpu_count()),
    }
    return stamp | {name: library_version(name) for name in LIBRARIES}


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def write_csv(path: Path, rows: list[dict]) -> None:
    stamp = machine_stamp()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *stamp], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**line, **stamp} for line in rows)


def update_csv(path: Path, rows: list[dict], key: str) -> None:
    """Write a table in which rows of other keys, from an earlier run, stay as they are."""
    fresh = {str(row[key]) for row in rows}
    stamped = [{**row, **machine_stamp()} for row in rows]
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row[key] not in fresh]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, stamped[0], lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*kept, *stamped])


def groups(rows: list[dict]) -> Iterator[tuple[tuple, list[dict]]]:
    """Rows that were measured together: same net, task, batch and threads."""
    keys = list(dict.fromkeys(group_key(line) for line in rows))
    for key in keys:
        yield key, [line for line in rows if group_key(line) == key]


def group_key(line: dict) -> tuple:
    return line["net"], line["task"], line["batch"], line["threads"]


def print_table(rows: list[dict]) -> None:
    for (net, task, batch, threads), lines in groups(rows):
        print(f"\n{net} {task}, batch {batch}, {threads} thread{'s' * (threads > 1)}")
        print(f"  {'case':22}{'CPU ms':>10}{'wall ms':>10}{'images/s':>10}{'CPU / ours':>12}")
        ours = next((x for x in lines if x["case"] == "ours"), None)
        for line in lines:
            ratio = line["cpu_ms_median"] / ours["cpu_ms_median"] if ours else float("nan")
            print(
                f"  {line['case']:22}{line['cpu_ms_median']:10.1f}{line['wall_ms_median']:10.1f}"
                f"{line['images_per_second']:10.1f}{ratio:12.2f}"
            )


def plot(path: Path, rows: list[dict], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = list(groups(rows))
    height = 0.6 + 0.32 * sum(len(lines) + 1.4 for _, lines in panels)
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, height),
        squeeze=False,
        height_ratios=[len(lines) for _, lines in panels],
        layout="constrained",
    )
    for axis, ((net, task, batch, threads), lines) in zip(axes[:, 0], panels, strict=True):
        values = [line["cpu_ms_median"] for line in lines]
        colors = ["#d1495b" if line["case"] == "ours" else "#8d99ae" for line in lines]
        bars = axis.barh([line["case"] for line in lines], values, color=colors)
        axis.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=8)
        axis.set_xlim(right=max(values) * 1.12)
        axis.invert_yaxis()
        axis.set_title(
            f"{net.replace('_', ' ')}, {task.replace('_', ' ')}, batch {batch}, threads {threads}",
            fontsize=9,
            loc="left",
        )
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("process CPU milliseconds a call (median; less is better)")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)

"""Shared by the benchmarks: clocks, the description of the machine, CSV files.

Figures of one run are comparable with each other; figures of different runs are not, because the
machine may have been busy. So quote ratios of one run.
"""

import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mlx_faceau.core.libraries import installed_version
from mlx_faceau.output.tables import Table

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("mlx", "torch", "onnxruntime", "numpy", "opencv-python-headless", "av")
LOAD_AT_START = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
Row = dict[str, object]
Times = tuple[float, float]  # CPU seconds of all threads, and wall seconds


def timed(call: Callable[[], object]) -> Times:
    """Of a call in this process."""
    start = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def timed_process(command: list[str]) -> Times:
    """Of a process that prints nothing we need."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def milliseconds(times: Sequence[Times]) -> Row:
    """Medians and the 95th percentile of several measurements."""
    cpu, wall = 1000 * np.transpose(times)
    return {
        "cpu_ms_median": round(float(np.median(cpu)), 3),
        "wall_ms_median": round(float(np.median(wall)), 3),
        "wall_ms_p95": round(float(np.percentile(wall, 95)), 3),
    }


def machine() -> dict[str, str]:
    """What the figures depend on besides the code."""
    processor, info = platform.processor(), Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    stamp = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()} {processor}",
        "cores": str(os.cpu_count()),
    }
    return stamp | {name: installed_version(name) or "-" for name in LIBRARIES}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, each with the machine's description, and print them."""
    columns = [*dict.fromkeys(name for row in rows for name in row)]
    stamp = {"load_at_start": LOAD_AT_START, **machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *stamp], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **stamp} for row in rows)
    print(Table(columns, [[str(row.get(name, "")) for name in columns] for row in rows]).text())
    print(path, flush=True, file=sys.stderr)

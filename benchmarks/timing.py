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
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlx_faceau.core.libraries import installed_version
from mlx_faceau.output.tables import Table

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("mlx", "torch", "onnxruntime", "numpy", "opencv-python-headless", "av")
Row = dict[str, object]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of all threads of this process, and wall seconds, of a call."""
    start = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def timed_process(command: list[str]) -> tuple[float, float]:
    """CPU seconds (user and system) and wall seconds of a process that prints nothing we need."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def load() -> float:
    """The machine's load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def resident_memory() -> int | None:
    """Bytes that this process holds now; None where the system does not say (all but Linux)."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, str]:
    """What the figures depend on besides the code."""
    stamp = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()} {_processor()}",
        "cores": str(os.cpu_count()),
    }
    return stamp | {name: installed_version(name) or "-" for name in LIBRARIES}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def write_csv(path: Path, rows: list[Row], key: str | None = None) -> None:
    """Write rows, each with the machine's description, and print them.

    Rows of an earlier file whose ``key``, a column, is not among the new ones are kept.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    stamp, kept = machine(), []
    if key is not None and path.exists():
        new = {str(row[key]) for row in rows}
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row[key] not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, [*columns, *stamp], lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows([*kept, *({**row, **stamp} for row in rows)])
    print(Table([*columns], [[str(row.get(name, "")) for name in columns] for row in rows]).text())
    print(path, flush=True, file=sys.stderr)

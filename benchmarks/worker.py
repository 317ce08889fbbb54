"""One benchmark case in a process of its own, kept alive: reads "go" lines, answers with times.

Started by compare.py, which sets the environment (threads, BLAS) before anything is imported.
Each answer is one JSON line: process CPU seconds of all threads, and wall seconds, of one call.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

WARM_UP_CALLS = 3
MIN_SECONDS = 0.02  # shorter calls are repeated within one measurement


def main() -> None:
    case = json.loads(sys.argv[1])
    call = build(case)
    for _ in range(WARM_UP_CALLS):
        call()
    start = time.perf_counter()
    call()
    repeats = max(1, round(MIN_SECONDS / (time.perf_counter() - start)))
    answer({"ready": True, "repeats": repeats})
    for _ in sys.stdin:
        answer(measure(call, repeats))


def measure(call: Callable[[], object], repeats: int) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu / repeats, "wall": wall / repeats}


def answer(line: dict[str, float | bool]) -> None:
    print(json.dumps(line), flush=True)


def build(case: dict) -> Callable[[], object]:
    """The call to time: inference on, or one training step with, a fixed random batch."""
    from cases import CASES

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case["batch"], 112, 112, 3), dtype=np.uint8)
    return CASES[case["task"]][case["case"]](case, images)


if __name__ == "__main__":
    main()

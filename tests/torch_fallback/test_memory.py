"""Memory that a training step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

PROGRAM = """
import resource, sys, torch
from mlx_faceau.torch_fallback.device import keep_freed_memory

def step():
    for size in (4, 16, 40):  # MiB
        torch.full((size << 18,), 1.0)

if sys.argv[1] == "keep":
    keep_freed_memory()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_arrays_are_not_taken_from_the_system_anew_in_every_step() -> None:
    plain = page_faults("plain")
    assert plain > 40_000  # 10,240 pages of the largest alone, five times
    assert page_faults("keep") < plain / 5  # the heap may grow once more, by the largest array

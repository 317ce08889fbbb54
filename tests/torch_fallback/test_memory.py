"""Memory that a training step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

PROGRAM = """
import os, resource, torch
from mlx_faceau.torch_fallback.device import keep_freed_memory

def step():
    for size in (4, 16, 40):  # MiB
        torch.full((size << 18,), 1.0)

def page_faults(prepare):
    child = os.fork()  # torch takes seconds to import
    if child:
        os.waitpid(child, 0)
        return
    prepare()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)

page_faults(lambda: None)
page_faults(keep_freed_memory)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_arrays_are_not_taken_from_the_system_anew_in_every_step() -> None:
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    plain, kept = map(int, run.stdout.split())
    assert plain > 160_000  # 10,240 pages of the largest alone, 20 times
    assert kept < plain / 5  # the heap may grow a few times more, by the largest array

"""Does a library load here, and what does it see? Asked in a process of its own.

An installed library may still not load (a wheel for another machine), or end the whole process
(instructions that this processor lacks), or find no GPU although there is one.
"""

import subprocess
import sys
from collections.abc import Iterable

_SECONDS = 60  # a first import from a slow disk may take long
# What a fresh interpreter runs: for a backend it prints what that would compute on, of another
# library it only imports the module.
_QUESTIONS = {
    "coreml": "import coremltools; print('Core ML')",
    "mlx": "import mlx.core as mx; print(mx.default_device().type.name)",
    "onnx": "import onnxruntime as o; print(', '.join(sorted("
    "p.removesuffix('ExecutionProvider') for p in o.get_available_providers() "
    "if p != 'AzureExecutionProvider')))",  # that one calls models over the network
    "torch": "import torch; print('cuda' if torch.cuda.is_available() else "
    "'mps' if torch.backends.mps.is_available() else 'cpu')",
}


def probe(names: Iterable[str]) -> dict[str, tuple[bool, str]]:
    """For each backend or module whether it loads, and what it sees, or why it does not load.

    All are asked at the same time.
    """
    asked = {name: _ask(_QUESTIONS.get(name, f"import {name}")) for name in names}
    return {name: _answer(process) for name, process in asked.items()}


def _ask(question: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", question],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _answer(process: "subprocess.Popen[str]") -> tuple[bool, str]:
    try:
        out, error = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False, f"no answer within {_SECONDS} s"
    if process.returncode == 0:
        return True, (out.strip().splitlines() or [""])[-1]
    last = (error.strip().splitlines() or [""])[-1]
    return False, last or f"its process ended with status {process.returncode}"

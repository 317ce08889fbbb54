"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real faces and the original tool's files, which lie beside the repository where they exist.

    They never enter it (research measurement only), so tests that use them skip elsewhere.
    """
    folder = REPOSITORY.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("the folder of real faces and reference checkpoints is not here")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _exact_float32() -> None:
    """TF32 would hide differences that the parity tests look for."""
    try:
        import torch
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

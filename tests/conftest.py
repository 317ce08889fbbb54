"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Before any framework loads: two workers of several threads each wait for one another and take ten
# times as long. Processes that tests start inherit it.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # it would hide what parity tests look for

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests run in one worker (pytest -n 2), so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real faces and the original tool's files, which lie beside the repository where they exist.

    They never enter it (research measurement only), so tests that use them skip elsewhere.
    """
    folder = REPOSITORY.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("the folder of real faces and reference checkpoints is not here")
    return folder


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind of net a folder with ``checkpoint_best.safetensors`` and ``<kind>.onnx``."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from random_nets import BOTH, write_checkpoint

    from mlx_faceau.convert.export_onnx import export_to_onnx

    folders = {}
    for config in BOTH:
        folder = folders[config.kind] = tmp_path_factory.mktemp(config.kind)
        checkpoint = write_checkpoint(folder / "checkpoint_best.safetensors", config)
        export_to_onnx(checkpoint, folder / f"{config.kind}.onnx")
    return folders


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder of a small untrained pair."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from stand_in import build_stand_in

    return build_stand_in(tmp_path_factory.mktemp("stand_in") / "weights")


@pytest.fixture(scope="session")
def core_ml_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind of net an ``.mlpackage``: landmarks in float32, action units in float16."""
    pytest.importorskip("torch")
    pytest.importorskip("coremltools")
    from random_nets import AU, LANDMARK, write_checkpoint

    from mlx_faceau.convert.export_coreml import export_to_coreml

    packages = {}
    for config, precision in ((LANDMARK, "float32"), (AU, "float16")):
        folder = tmp_path_factory.mktemp("packages")
        checkpoint = write_checkpoint(folder / "net.safetensors", config)
        packages[config.kind] = folder / f"{config.kind}.mlpackage"
        export_to_coreml(checkpoint, packages[config.kind], precision=precision)
    return packages

"""Fixtures shared by all tests."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Before any framework loads: two workers of several threads each wait for one another and take ten
# times as long. Processes that tests start inherit it.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # it would hide what parity tests look for

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A test that trains through the command line leaves the logs as loud as they were."""
    loggers = [logging.getLogger(name) for name in ("mlx_faceau", "mlx_faceau.train")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


# What converts to Core ML: one worker's work, since each has to import coremltools for it.
CORE_ML = (
    "test_coreml_variants.py",
    "test_export_coreml.py",
    "test_export_check.py",
    "test_mil.py",
    "test_backend_parity.py",
    "test_builtin.py",
)
# The next files by CPU time, down to four seconds.
LONG = (
    "test_trainers.py",
    "test_run.py",
    "test_onnx_variants.py",
    "test_equivalence.py",
    "test_quantise.py",
    "test_distributed.py",
    "test_hidden_libraries.py",
    "test_distribution.py",
    "test_export_command.py",
    "test_auxiliary_targets.py",
    "test_initial_weights.py",
    "test_parity.py",
    "test_photographs.py",
    "test_openface_au_models.py",
    "test_doc_python.py",
    "test_export_onnx.py",
    "test_overfit.py",
    "test_decoder.py",
    "test_predictor.py",
    "test_properties.py",
    "test_convert_command.py",
    "test_result_files.py",
    "test_pipeline.py",
    "test_demo.py",
    "test_batches.py",
    "test_info.py",
    "test_predict_faces.py",
    "test_benchmark.py",
    "test_libraries.py",
    "test_hostile_files.py",
    "test_onnx_only.py",
    "test_drop_in.py",
    "test_evaluate_trained_on.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests run in one worker (pytest -n 2), so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "coremltools" if Path(file).name in CORE_ML else file

    config.option.loadscopereorder = False  # by the number of tests
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker waits for one at the end."""
    places = {name: place for place, name in enumerate((*CORE_ML, *LONG))}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def skip_without_coremltools() -> None:
    """Skip a file without an import, which takes more than a second."""
    if find_spec("coremltools") is None:
        pytest.skip("coremltools is not installed", allow_module_level=True)


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
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Fills a folder once for all workers of a run; the others wait, and nobody changes it."""
    filelock = pytest.importorskip("filelock")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder = base / name
        with filelock.FileLock(base / f"{name}.lock"):
            if not folder.exists():
                unfinished = Path(tempfile.mkdtemp(dir=base))
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def model_folders(made_once: Callable[..., Path]) -> dict[str, Path]:
    """By kind of net a folder with ``checkpoint_best.safetensors`` and ``<kind>.onnx``."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from random_nets import BOTH, write_checkpoint

    from mlx_faceau.convert.export_onnx import export_to_onnx

    def export(config: Any, folder: Path) -> None:
        checkpoint = write_checkpoint(folder / "checkpoint_best.safetensors", config)
        export_to_onnx(checkpoint, folder / f"{config.kind}.onnx")

    return {config.kind: made_once(config.kind, partial(export, config)) for config in BOTH}


@pytest.fixture(scope="session")
def onnx_file(made_once: Callable[..., Path]) -> Callable[..., Path]:
    """The file of a random net, or of two in one, that is exported with some options."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from random_nets import random_source

    from mlx_faceau.convert.export_onnx import export_to_onnx
    from mlx_faceau.convert.source_model import CombinedModel

    def path(*configs: Any, **options: Any) -> Path:
        nets = [random_source(config) for config in configs]
        net = nets[0] if len(nets) == 1 else CombinedModel(*nets)
        name = "-".join(
            ["onnx", *(net.kind for net in nets), *(f"{k}={v}" for k, v in options.items())]
        )
        return made_once(name, lambda to: export_to_onnx(net, to / "a.onnx", **options)) / "a.onnx"

    return path


@pytest.fixture(scope="session")
def stand_in(made_once: Callable[..., Path]) -> Path:
    """A weights folder of a small untrained pair."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from stand_in import build_stand_in

    return made_once("stand_in", build_stand_in)


@pytest.fixture(scope="session")
def core_ml_packages(made_once: Callable[..., Path]) -> dict[str, Path]:
    """By kind of net an ``.mlpackage``: landmarks in float32, action units in float16."""
    pytest.importorskip("torch")
    pytest.importorskip("coremltools")
    from quick_core_ml import quick_conversion
    from random_nets import AU, LANDMARK, write_checkpoint

    from mlx_faceau.convert.export_coreml import export_to_coreml

    def export(config: Any, precision: str, folder: Path) -> None:
        checkpoint = write_checkpoint(folder / "net.safetensors", config)
        with quick_conversion():
            export_to_coreml(checkpoint, folder / f"{config.kind}.mlpackage", precision=precision)

    return {
        config.kind: made_once(f"core_ml_{config.kind}", partial(export, config, precision))
        / f"{config.kind}.mlpackage"
        for config, precision in ((LANDMARK, "float32"), (AU, "float16"))
    }

"""Libraries that are installed but do not load: each failure names its remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_faceau.cli.info import _lines
from mlx_faceau.core import libraries
from mlx_faceau.core.libraries import installed_opencv, library_error
from mlx_faceau.errors import MissingDependency, UsageError

NO_GL = "libGL.so.1: cannot open shared object file: No such file or directory"
# How libraries were seen to fail: text of the module's __init__.
FAILURES = {
    "system library": f"raise ImportError({NO_GL!r})",
    "extension": f"raise ImportError({NO_GL!r}, name='LIBRARY.LIBRARY', path='x.so')",
    "half of it": "import LIBRARY.no_such_part",
    "ctypes": "raise OSError('libcudart.so.12: cannot open shared object file')",
    "another NumPy": "raise ValueError('numpy.dtype size changed, may indicate incompatibility')",
    "NumPy 1": "raise AttributeError('_ARRAY_API not found')",
    "NumPy 2": "raise RuntimeError('module compiled against ABI version 0x1000009')",
    "below": "def load():\n    raise ImportError('DLL load failed')\nload()",
}
# Which library it is makes no difference to how its failure is recognised.
SOME = {name: FAILURES[name] for name in ("extension", "half of it", "another NumPy")}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
    )


def install(folder: Path, library: str, text: str) -> None:
    (folder / library).mkdir()
    (folder / library / "__init__.py").write_text(text.replace("LIBRARY", library))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_an_opencv_that_does_not_load_is_one_line_with_the_remedy(tmp_path, failure):
    install(tmp_path, "cv2", failure)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    result = run(tmp_path, "-m", "mlx_faceau", "predict", "photo.jpg")
    assert result.returncode == 2
    assert result.stderr.startswith("mlx-faceau: OpenCV is installed but does not load (")
    assert result.stderr.count("\n") == 1
    assert "run: pip uninstall -y opencv-" in result.stderr
    assert result.stderr.endswith("; pip install opencv-python-headless\n")


@pytest.mark.parametrize("failure", SOME.values(), ids=SOME)
def test_any_library_that_does_not_load_is_named_with_the_line_that_reinstalls_it(
    tmp_path, failure
):
    install(tmp_path, "h5py", failure)
    result = run(tmp_path, "-m", "mlx_faceau", "data", "stats", "faces.h5")
    assert result.returncode == 2
    assert result.stderr.startswith("mlx-faceau: h5py is installed but does not load (")
    assert result.stderr.endswith("; run: pip install --force-reinstall h5py\n")
    assert result.stderr.count("\n") == 1


def test_python_programs_get_the_same_error(tmp_path):
    install(tmp_path, "cv2", FAILURES["system library"])
    result = run(tmp_path, "-c", "import mlx_faceau; mlx_faceau.FacePipeline")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mlx_faceau.errors.BrokenLibrary: OpenCV is installed but does not load")
    assert NO_GL in last
    assert last.endswith("pip install opencv-python-headless")


def test_info_shows_what_does_not_load_and_a_training_that_cannot_run(tmp_path):
    install(tmp_path, "cv2", FAILURES["system library"])
    install(tmp_path, "h5py", FAILURES["another NumPy"])
    install(tmp_path, "av", FAILURES["system library"])
    for large in ("torch", "coremltools", "matplotlib", "onnxruntime"):  # slow to load, not asked
        install(tmp_path, large, "")
    result = run(tmp_path, "-m", "mlx_faceau", "info", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert NO_GL in report["problems"]["cv2"]
    assert NO_GL in report["problems"]["av"]
    assert "numpy.dtype size changed" in report["problems"]["h5py"]
    for state in report["training"].values():
        assert "h5py is installed but does not load" in state or "is not installed" in state
    assert "OpenCV is installed but does not load" in report["face detectors"]["yunet"]
    shown = " ".join("\n".join(_lines(report)).split())
    assert "OpenCV is installed but does not load" in shown


def test_a_library_is_reinstalled_by_the_distribution_that_has_its_files():
    pytest.importorskip("dlib")
    reinstall = str(libraries.broken("dlib", "no AVX")).rpartition("--force-reinstall ")[2]
    assert libraries.installed_version(reinstall)


@pytest.mark.parametrize("failure", SOME.values(), ids=SOME)
def test_a_library_of_an_extra_that_does_not_load_is_not_called_missing(tmp_path, failure):
    install(tmp_path, "matplotlib", failure)
    code = "from mlx_faceau.output.plotting import new_figure; new_figure(1, 1)"
    last = run(tmp_path, "-c", code).stderr.strip().splitlines()[-1]
    assert last.startswith("mlx_faceau.errors.BrokenLibrary: matplotlib is installed but does not")
    assert last.endswith("pip install --force-reinstall matplotlib")


def test_a_hidden_library_is_missing_by_the_name_of_any_of_its_modules(monkeypatch):
    for name in ("mlx", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    for module in ("mlx", "mlx.no_such", "safetensors.no_such"):
        with pytest.raises(MissingDependency, match=r'pip install "mlx-faceau\[an-extra\]"'):
            libraries.import_library(module, "an-extra")


def test_two_opencvs_are_reported(monkeypatch):
    versions = {"opencv-python": "4.14.0", "opencv-python-headless": "5.0.0"}
    monkeypatch.setattr(libraries, "installed_version", versions.get)
    assert installed_opencv() == versions
    text = str(libraries.opencv_conflict())
    assert "opencv-python 4.14.0 and opencv-python-headless 5.0.0" in text
    assert text.endswith(
        "pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python-headless"
    )
    versions.pop("opencv-python")
    assert libraries.opencv_conflict() is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'h5py'", name="no_h5"), "no_h5 is not installed"),
        (UsageError("--frame-step is 0"), None),
        (OSError("a full disk"), None),
        (ValueError("a defect"), None),
        (ImportError("cannot import name 'x'", name="mlx_faceau.core"), None),
    ],
    ids=["missing", "usage", "system", "defect", "ours"],
)
def test_other_errors_are_not_taken_for_a_library_s(error, message):
    found = library_error(error)
    assert found is None if message is None else str(found).startswith(message)

"""What works without which library, each in a fresh process where it cannot be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from random_nets import AU, LANDMARK, random_crops, reference_outputs, write_checkpoint

HEAVY = ("mlx", "torch", "coremltools", "onnx", "onnxruntime", "h5py", "safetensors", "cv2")
HEAVY += ("matplotlib", "jinja2", "tqdm", "tensorboardX")


def run_without(libraries, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process where importing any of the libraries fails."""
    hide = f"import sys\nfor name in {list(libraries)!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", hide + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def without(*kept: str) -> list[str]:
    return [name for name in HEAVY if name not in kept]


def test_importing_the_package_imports_no_library():
    code = """
import mlx_faceau, mlx_faceau.cli.main
print([n for n in sys.modules if n.split('.')[0] in ('numpy', 'mlx', 'torch', 'coremltools', 'onnx',
    'onnxruntime', 'h5py', 'safetensors', 'cv2', 'matplotlib', 'jinja2', 'tqdm')])
"""
    result = run_without([], code)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_importing_the_predictors_imports_numpy_alone():
    code = f"""
import mlx_faceau.inference.predictor
print([n for n in sys.modules if n in {HEAVY!r}])
"""
    assert run_without([], code).stdout.strip() == "[]"


PREDICT = """
import json, cv2, mlx_faceau
crop = cv2.imread(sys.argv[1])
landmarks = mlx_faceau.load_predictor(sys.argv[2])
units = mlx_faceau.load_au_predictor(sys.argv[3])
print(json.dumps({
    "backends": [landmarks.backend, units.backend],
    "landmarks": landmarks.predict(crop)["landmarks"].tolist(),
    "au_intensities": units.predict(crop)["au_intensities"].tolist(),
}))
"""


@pytest.mark.parametrize("folder", [True, False], ids=["folders", "files"])
def test_a_box_with_numpy_opencv_and_onnxruntime_predicts(model_folders, tmp_path, folder):
    crop = random_crops(1)
    cv2.imwrite(str(tmp_path / "crop.png"), crop[0])
    kinds = (LANDMARK.kind, AU.kind)
    models = [model_folders[k] if folder else model_folders[k] / f"{k}.onnx" for k in kinds]
    result = run_without(without("cv2", "onnxruntime"), PREDICT, tmp_path / "crop.png", *models)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["backends"] == ["onnx", "onnx"]
    true = reference_outputs(LANDMARK, crop)["landmarks"][0]
    np.testing.assert_allclose(answer["landmarks"], true, rtol=0, atol=1e-3)
    true = reference_outputs(AU, crop)["au_intensities"][0].clip(0, 5)
    np.testing.assert_allclose(answer["au_intensities"], true, rtol=0, atol=1e-4)


def test_a_box_that_only_exports_writes_the_model_card(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "net.safetensors", AU)
    code = "import mlx_faceau.output.model_card as m; m.write_model_card(sys.argv[1], sys.argv[2])"
    result = run_without(without("safetensors", "jinja2"), code, checkpoint, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "# AUPredictionNet" in (tmp_path / "MODEL_CARD.md").read_text()


LOAD = "import mlx_faceau; mlx_faceau.load_predictor(sys.argv[1], backend=sys.argv[2])"


@pytest.mark.parametrize(
    ("backend", "library", "extra"),
    [
        ("onnx", "onnxruntime", r"cpu"),
        ("torch", "torch", "torch"),
        ("mlx", "mlx", "m"),  # mac or mlx-cpu, as the machine is
    ],
)
def test_an_explicit_backend_without_its_library_names_the_line_that_installs_it(
    model_folders, backend, library, extra
):
    result = run_without([library], LOAD, model_folders["landmark_pose"], backend)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mlx_faceau.errors.BackendError: ")
    assert f'{library} is not installed; run: pip install "mlx-faceau[{extra}' in last


def test_with_no_runtime_at_all_every_backend_is_named_with_its_remedy(model_folders):
    result = run_without(without("safetensors"), LOAD, model_folders["landmark_pose"], "auto")
    last = result.stderr.strip().splitlines()[-1]
    assert "no backend can run this model here" in last
    assert last.count("pip install") >= 2


EXPORTS = """
import mlx_faceau
try:
    getattr(mlx_faceau, sys.argv[1])(sys.argv[2], sys.argv[3])
except mlx_faceau.errors.MissingDependency as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("function", "ending", "hidden", "extra"),
    [
        ("export_to_onnx", ".onnx", "onnx", "export"),
        ("export_to_onnx", ".onnx", "torch", "export"),
        ("export_to_onnx", ".onnx", "onnxruntime", "cpu"),
        ("export_to_coreml", ".mlpackage", "coremltools", "export"),
    ],
)
def test_exporting_without_a_library_names_the_line_and_leaves_nothing(
    model_folders, tmp_path, function, ending, hidden, extra
):
    pytest.importorskip("torch")
    target = tmp_path / f"a{ending}"
    result = run_without([hidden], EXPORTS, function, model_folders["au_prediction"], target)
    assert result.returncode == 0, result.stderr
    assert f'pip install "mlx-faceau[{extra}]"' in result.stdout
    assert not list(tmp_path.iterdir())


def test_help_needs_no_library():
    code = "from mlx_faceau.cli.main import main; main(sys.argv[1:])"
    for arguments in (["--help"], ["export", "--help"], ["predict", "--help"]):
        result = run_without(HEAVY, code, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert "usage: mlx-faceau" in result.stdout


def test_the_folder_of_this_test_is_not_needed(tmp_path):
    """The package is found where it is installed, not through the current folder."""
    assert Path(__file__).exists()
    find = "from importlib.util import find_spec; import mlx_faceau.convert, sys; "
    find += "sys.exit(find_spec('mlx_faceau.torch_fallback') is None)"
    result = subprocess.run(
        [sys.executable, "-c", find],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr

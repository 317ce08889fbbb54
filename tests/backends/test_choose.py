"""Which backend is taken: the truth table of platform, files and libraries, and the files found."""

import itertools
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_nets import AU, LANDMARK, random_weights, write_checkpoint
from wire import write_mlpackage, write_onnx

from mlx_faceau.core.checkpoint import describe, file_hash, save_checkpoint
from mlx_faceau.errors import BackendError, CheckpointError, UsageError
from mlx_faceau.inference import backends
from mlx_faceau.inference.backends import open_backend
from mlx_faceau.inference.backends.choice import (
    BACKENDS,
    Machine,
    choose,
    find_files,
    installed_libraries,
)

APPLE = Machine("Darwin", "arm64")
INTEL_MAC = Machine("Darwin", "x86_64")
LINUX = Machine("Linux", "x86_64")
WINDOWS = Machine("Windows", "AMD64")
BOTH_CUDA = Machine("Linux", "x86_64", True, frozenset({"onnxruntime", "torch"}))
TORCH_CUDA = Machine("Linux", "x86_64", True, frozenset({"torch"}))
NO_CUDA = Machine("Linux", "x86_64", True)

# The specification's table, and what of it an installed CUDA build changes.
ORDERS = {
    APPLE: ("coreml", "mlx", "onnx", "torch"),
    INTEL_MAC: ("onnx", "torch"),
    LINUX: ("onnx", "torch", "mlx"),
    WINDOWS: ("onnx", "torch", "mlx"),
    BOTH_CUDA: ("onnx", "torch", "mlx"),
    TORCH_CUDA: ("torch", "onnx", "mlx"),
    NO_CUDA: ("onnx", "torch", "mlx"),
}
# Names for the test ids: a set prints in another order in every process.
MACHINES = {
    "apple": APPLE,
    "intel-mac": INTEL_MAC,
    "linux": LINUX,
    "windows": WINDOWS,
    "cuda-both": BOTH_CUDA,
    "cuda-torch": TORCH_CUDA,
    "cuda-none": NO_CUDA,
}
FILES_OF = {
    "coreml": Path("m.mlpackage"),
    "mlx": Path("checkpoint_best.safetensors"),
    "onnx": Path("m.onnx"),
    "torch": Path("checkpoint_best.safetensors"),
}
ALL_LIBRARIES = dict.fromkeys(BACKENDS)
FILE_SETS = [
    {name: FILES_OF[name] for name in BACKENDS if FILES_OF[name].suffix in suffixes}
    for count in range(4)
    for suffixes in itertools.combinations((".mlpackage", ".safetensors", ".onnx"), count)
]
LIBRARY_SETS = [
    {name: None if name in there else f"{name} is missing" for name in BACKENDS}
    for count in range(5)
    for there in itertools.combinations(BACKENDS, count)
]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("requested", [None, "auto"])
def test_auto_takes_the_first_that_has_platform_library_and_file(machine, requested):
    for found, libraries in itertools.product(FILE_SETS, LIBRARY_SETS):
        able = [n for n in ORDERS[machine] if n in found and libraries[n] is None]
        if not able:
            with pytest.raises(BackendError, match="no backend can run this model here: "):
                choose(machine, found, libraries, requested)
            continue
        choice = choose(machine, found, libraries, requested)
        assert (choice.backend, choice.path) == (able[0], found[able[0]])
        before = ORDERS[machine][: ORDERS[machine].index(able[0])]
        assert tuple(name for name, _ in choice.passed_over) == before
        assert all(reason for _, reason in choice.passed_over)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("requested", BACKENDS)
def test_an_explicit_backend_runs_or_raises_and_nothing_takes_its_place(machine, requested):
    # Core ML works on Intel Macs; auto leaves it out there.
    possible = requested in ORDERS[machine] or (machine, requested) == (INTEL_MAC, "coreml")
    for found, libraries in itertools.product(FILE_SETS, LIBRARY_SETS):
        if possible and requested in found and libraries[requested] is None:
            choice = choose(machine, found, libraries, requested)
            assert (choice.backend, choice.passed_over) == (requested, ())
        else:
            with pytest.raises(BackendError, match=BACKENDS[requested].title):
                choose(machine, found, libraries, requested)


@pytest.mark.parametrize(
    ("machine", "requested", "libraries", "files", "message"),
    [
        (LINUX, "coreml", {}, FILES_OF, "Core ML: predicts on macOS only, this is Linux; use the"),
        (INTEL_MAC, "mlx", {}, FILES_OF, "MLX: has no build for Intel Macs; use the .onnx file"),
        (LINUX, "onnx", {"onnx": 'run: pip install "x[cpu]"'}, FILES_OF, "ONNX Runtime: run: pip"),
        (LINUX, "torch", {}, {}, "PyTorch: no file that it reads"),
    ],
)
def test_the_error_names_the_cause_and_the_remedy(machine, requested, libraries, files, message):
    with pytest.raises(BackendError) as caught:
        choose(machine, files, ALL_LIBRARIES | libraries, requested)
    assert str(caught.value).startswith(message)


def test_without_preference_core_ml_comes_last():
    choice = choose(APPLE, FILES_OF, ALL_LIBRARIES, prefer_coreml=False)
    assert choice.backend == "mlx"
    only = {"coreml": FILES_OF["coreml"]}
    assert choose(APPLE, only, ALL_LIBRARIES, prefer_coreml=False).backend == "coreml"


def test_an_unknown_backend_is_a_bad_argument():
    with pytest.raises(ValueError, match="expected one of auto, coreml, mlx, onnx, torch"):
        choose(LINUX, FILES_OF, ALL_LIBRARIES, "tensorflow")


@pytest.mark.parametrize(
    ("machine", "extras"),
    [
        (APPLE, {"coreml": "mac", "mlx": "mac", "onnx": "cpu", "torch": "torch"}),
        (LINUX, {"coreml": "mac", "mlx": "mlx-cpu", "onnx": "cpu", "torch": "torch"}),
        (NO_CUDA, {"coreml": "mac", "mlx": "mlx-cpu", "onnx": "cuda", "torch": "torch"}),
    ],
)
def test_a_missing_library_names_the_line_that_installs_it(monkeypatch, machine, extras):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = installed_libraries(machine)
    assert lines == {
        name: f'{BACKENDS[name].library} is not installed; run: pip install "mlx-faceau[{extra}]"'
        for name, extra in extras.items()
    }


# --- files


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model directory with a checkpoint and both exports of it."""
    source = file_hash(write_checkpoint(tmp_path / "checkpoint_best.safetensors", AU))
    metadata = describe(AU, source_hash=source)
    write_onnx(tmp_path / "au_prediction.onnx", metadata)
    write_mlpackage(tmp_path / "au_prediction.mlpackage", metadata)
    return tmp_path


def found_in(files: dict) -> set[str]:
    return {name for name, found in files.items() if isinstance(found, Path)}


def test_a_directory_offers_each_backend_its_file(folder):
    files = find_files(folder, "au_prediction")
    assert {name: path.name for name, path in files.items()} == {
        "coreml": "au_prediction.mlpackage",
        "mlx": "checkpoint_best.safetensors",
        "onnx": "au_prediction.onnx",
        "torch": "checkpoint_best.safetensors",
    }


def test_exports_of_another_checkpoint_than_the_one_beside_them_are_passed_over(folder):
    write_checkpoint(folder / "checkpoint_best.safetensors", AU, seed=1)
    files = find_files(folder, "au_prediction")
    assert found_in(files) == {"mlx", "torch"}
    for name in ("onnx", "coreml"):
        assert "was exported from another checkpoint" in files[name]


def test_exports_of_the_file_that_the_checkpoint_came_from_are_good(tmp_path):
    arrays = {f"model.{name}": value for name, value in random_weights(AU).items()}
    save_checkpoint(tmp_path / "checkpoint_best.safetensors", arrays, describe(AU, source_hash="1"))
    write_onnx(tmp_path / "au_prediction.onnx", describe(AU, source_hash="1"))
    assert "onnx" in found_in(find_files(tmp_path, "au_prediction"))


def test_exports_without_a_checkpoint_beside_them_are_good(folder):
    (folder / "checkpoint_best.safetensors").unlink()
    files = find_files(folder, "au_prediction")
    assert found_in(files) == {"coreml", "onnx"}
    assert "no checkpoint_best.safetensors" in files["mlx"]


def test_weights_alone_serve_a_folder_without_a_checkpoint(tmp_path):
    """A folder of ``export --to safetensors``, to which exports may have been added since."""
    weights = write_checkpoint(tmp_path / "au_prediction.safetensors", AU)
    assert found_in(find_files(tmp_path, "au_prediction")) == {"mlx", "torch"}
    with pytest.raises(CheckpointError, match="expected landmark_pose; open it with load_au_pred"):
        find_files(tmp_path, "landmark_pose")
    onnx = write_onnx(tmp_path / "au_prediction.onnx", describe(AU, source_hash="1"))
    files = find_files(tmp_path, "au_prediction")
    assert (files["mlx"], files["torch"], files["onnx"]) == (weights, weights, onnx)
    best = write_checkpoint(tmp_path / "checkpoint_best.safetensors", AU)
    assert find_files(tmp_path, "au_prediction")["mlx"] == best


def test_an_export_of_another_source_than_the_weights_beside_it_is_passed_over(tmp_path):
    arrays = {f"model.{name}": value for name, value in random_weights(AU).items()}
    weights = tmp_path / "au_prediction.safetensors"
    save_checkpoint(weights, arrays, describe(AU, source_hash="1"))
    for source, found in (("1", True), (file_hash(weights), True), ("2", False)):
        write_onnx(tmp_path / "au_prediction.onnx", describe(AU, source_hash=source))
        assert ("onnx" in found_in(find_files(tmp_path, "au_prediction"))) is found


def test_damaged_exports_are_passed_over_with_the_reason(folder):
    (folder / "au_prediction.onnx").write_bytes(b"\x0b")
    shutil.rmtree(folder / "au_prediction.mlpackage" / "Data")
    files = find_files(folder, "au_prediction")
    assert found_in(files) == {"mlx", "torch"}
    assert "not a readable ONNX file" in files["onnx"]


def test_one_directory_can_hold_both_nets(folder):
    write_onnx(folder / "landmark_pose.onnx", describe(LANDMARK))
    files = find_files(folder, "landmark_pose")
    assert found_in(files) == {"onnx"}
    assert "holds a net of kind au_prediction" in files["torch"]


def test_a_file_of_both_nets_serves_each_that_has_none_of_its_own(folder):
    nets = {config.kind: {"source_hash": "1"} for config in (LANDMARK, AU)}
    both = write_onnx(folder / "combined.onnx", {"kind": "combined", "nets": nets})
    assert find_files(folder, "landmark_pose")["onnx"] == both
    assert find_files(folder, "au_prediction")["onnx"] == folder / "au_prediction.onnx"
    (folder / "au_prediction.onnx").unlink()
    assert "another checkpoint" in find_files(folder, "au_prediction")["onnx"]
    (folder / "checkpoint_best.safetensors").unlink()
    assert find_files(folder, "au_prediction")["onnx"] == both


def test_a_directory_of_the_other_net_names_the_function_that_opens_it(folder):
    with pytest.raises(CheckpointError, match="expected landmark_pose; open it with load_au_pred"):
        find_files(folder, "landmark_pose")
    (folder / "checkpoint_best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="expected landmark_pose; open it with load_au_pred"):
        find_files(folder, "landmark_pose")


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("a.safetensors", ("mlx", "torch")),
        ("a.pt", ("torch",)),
        ("a.onnx", ("onnx",)),
        ("a.mlpackage", ("coreml",)),
    ],
)
def test_a_single_file_goes_to_the_backends_that_read_it(tmp_path, name, readers):
    path = tmp_path / name
    path.mkdir() if path.suffix == ".mlpackage" else path.touch()
    files = find_files(path, "au_prediction")
    assert {backend: files[backend] for backend in found_in(files)} == dict.fromkeys(readers, path)
    reasons = [files[backend] for backend in BACKENDS if backend not in readers]
    assert all(f"not {name}" in reason for reason in reasons)


def test_what_is_no_model_is_refused(tmp_path):
    for path in (5, None, b"runs", ["runs"]):
        with pytest.raises(UsageError, match="a model is 'builtin' or a path, got"):
            find_files(path, "au_prediction")
    (tmp_path / "a.txt").touch()
    with pytest.raises(CheckpointError, match=r"a\.txt: not a model file; expected one of \.mlp"):
        find_files(tmp_path / "a.txt", "au_prediction")
    with pytest.raises(CheckpointError, match="no such file or directory"):
        find_files(tmp_path / "none", "au_prediction")
    files = find_files(tmp_path, "au_prediction")
    assert found_in(files) == set()
    assert "'mlx-faceau export' makes it" in files["onnx"]


# --- opening


class Opened:
    def __init__(self, path: Path) -> None:
        self.path = path

    def describe(self) -> dict:
        return {"kind": "au_prediction"}


@pytest.fixture
def on_linux(monkeypatch) -> None:
    monkeypatch.setattr(backends, "this_machine", lambda: LINUX)
    monkeypatch.setattr(backends, "installed_libraries", lambda machine: ALL_LIBRARIES)


def replace_backends(monkeypatch, **classes) -> None:
    """Stand-ins for backends' classes, whose modules are not imported."""

    def module_of(name: str, package: str) -> SimpleNamespace:
        backend = name.removeprefix(".").removesuffix("_backend")
        return SimpleNamespace(**{BACKENDS[backend].class_name: classes[backend]})

    monkeypatch.setattr(backends, "import_module", module_of)


def half_a_library(path, **options):
    text = "libonnxruntime.so: cannot open shared object file"
    raise ImportError(text, name="onnxruntime.capi.onnxruntime_pybind11_state")


@pytest.mark.usefixtures("on_linux")
def test_auto_passes_over_a_library_that_is_installed_but_does_not_load(
    folder, monkeypatch, caplog
):
    replace_backends(monkeypatch, onnx=half_a_library, torch=Opened)
    with caplog.at_level(logging.INFO):
        backend = open_backend(folder, "au_prediction")
    assert backend.path == folder / "checkpoint_best.safetensors"
    assert "ONNX Runtime passed over: onnxruntime is installed but does not load" in caplog.text
    assert f"PyTorch runs {backend.path}" in caplog.text


@pytest.mark.usefixtures("on_linux")
@pytest.mark.parametrize("error", [CheckpointError, BackendError])
def test_auto_passes_over_a_file_that_its_library_refuses(folder, monkeypatch, caplog, error):
    def unreadable(path, **options):
        raise error(f"{path}: not a readable ONNX file: opset 99 is not known")

    replace_backends(monkeypatch, onnx=unreadable, torch=Opened)
    with caplog.at_level(logging.INFO):
        backend = open_backend(folder, "au_prediction")
    assert backend.path == folder / "checkpoint_best.safetensors"
    assert "ONNX Runtime passed over:" in caplog.text
    assert "opset 99 is not known" in caplog.text
    for path, backend_name in ((folder, "onnx"), (folder / "au_prediction.onnx", None)):
        with pytest.raises(error, match="opset 99"):
            open_backend(path, "au_prediction", backend_name)


@pytest.mark.usefixtures("on_linux")
@pytest.mark.parametrize("damaged", ["checkpoint_best.safetensors", "au_prediction.onnx"])
def test_auto_warns_of_a_damaged_file_that_another_is_taken_for(
    folder, monkeypatch, caplog, damaged
):
    replace_backends(monkeypatch, onnx=lambda path, **_: Opened(path), torch=Opened)
    open_backend(folder, "au_prediction")
    assert " is taken" not in caplog.text
    (folder / damaged).write_bytes(b"\x0b")
    backend = open_backend(folder, "au_prediction")
    (line,) = (line for line in caplog.messages if line.endswith(" is taken"))
    assert line.startswith(f"{folder / damaged}: ")
    assert line.endswith(f"; {backend.path} is taken")


@pytest.mark.usefixtures("on_linux")
def test_an_explicit_library_that_does_not_load_raises(folder, monkeypatch):
    replace_backends(monkeypatch, onnx=half_a_library)
    with pytest.raises(
        BackendError, match=r"does not load \(libonnx.*\); run: pip install --force"
    ):
        open_backend(folder, "au_prediction", "onnx")


@pytest.mark.usefixtures("on_linux")
def test_a_stale_export_is_passed_over_with_a_logged_line(folder, monkeypatch, caplog):
    write_checkpoint(folder / "checkpoint_best.safetensors", AU, seed=1)
    replace_backends(monkeypatch, torch=Opened)
    with caplog.at_level(logging.INFO):
        open_backend(folder, "au_prediction")
    assert "was exported from another checkpoint" in caplog.text
    with pytest.raises(BackendError, match="export it again"):
        open_backend(folder, "au_prediction", "onnx")


@pytest.mark.usefixtures("on_linux")
def test_a_file_of_the_other_net_is_refused(folder, monkeypatch):
    replace_backends(monkeypatch, torch=Opened)
    with pytest.raises(CheckpointError, match="expected landmark_pose; open it with load_au_pred"):
        open_backend(folder / "checkpoint_best.safetensors", "landmark_pose")

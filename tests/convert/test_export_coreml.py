"""One Core ML package a net: its interface, its bytes, and safe replacement."""

import os
import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import skip_without_coremltools
from random_nets import AU, BOTH, LANDMARK, random_weights

torch = pytest.importorskip("torch")
skip_without_coremltools()

from quick_core_ml import quick_conversion  # noqa: E402

from mlx_faceau.convert import export_coreml  # noqa: E402
from mlx_faceau.convert.check import CheckFailed  # noqa: E402
from mlx_faceau.convert.export_coreml import export_to_coreml  # noqa: E402
from mlx_faceau.convert.mil import load_coremltools, read_mlpackage, torch_dtype  # noqa: E402
from mlx_faceau.convert.source_model import SourceModel  # noqa: E402
from mlx_faceau.convert.variants import Variant  # noqa: E402
from mlx_faceau.core.artifact_metadata import find_mlmodel, read_exported_metadata  # noqa: E402
from mlx_faceau.core.checkpoint import describe, file_hash  # noqa: E402
from mlx_faceau.errors import ExportError  # noqa: E402
from mlx_faceau.torch_fallback import build  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)


def random_net(config, seed: int = 0):
    net = build(config)
    net.load_weights_dict(random_weights(config, seed))
    return net


def contents(package: Path) -> dict[str, bytes]:
    files = (path for path in package.rglob("*") if path.is_file())
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


def model_of(package: Path):
    load_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString(find_mlmodel(package).read_bytes())
    return model


class Copied:
    """Stands for a conversion, whose result is a package that was converted before."""

    def __init__(self, package: Path) -> None:
        self.package = package

    def save(self, path: str) -> None:
        shutil.copytree(self.package, path)


@pytest.fixture
def au_conversion(core_ml_packages, monkeypatch) -> None:
    copied = Copied(core_ml_packages["au_prediction"])
    monkeypatch.setattr(export_coreml, "_convert", lambda source, variant: copied)


@KINDS
def test_input_and_outputs_are_float32_arrays_of_one_face(core_ml_packages, kind):
    program = read_mlpackage(core_ml_packages[kind])
    ports = [(p.name, p.dtype, p.shape) for p in (*program.inputs, *program.outputs)]
    assert ports == [("image", "float32", (1, 3, 112, 112))] + [
        (name, "float32", (1, *shape)) for name, shape in BY_KIND[kind].output_shapes.items()
    ]


def test_computation_is_in_the_precision_that_was_asked_for(core_ml_packages):
    precisions = {
        kind: {
            torch_dtype(op.outputs[0])
            for op in read_mlpackage(package).operations
            if op.op_type == "conv"
        }
        for kind, package in core_ml_packages.items()
    }
    assert precisions == {"landmark_pose": {torch.float32}, "au_prediction": {torch.float16}}


def test_the_scale_uses_the_softplus_that_float16_hardware_survives(core_ml_packages):
    kinds = {op.op_type for op in read_mlpackage(core_ml_packages["landmark_pose"]).operations}
    assert {"abs", "exp", "log"} <= kinds


@KINDS
def test_packages_are_ml_programs_for_macos_13(core_ml_packages, kind):
    model = model_of(core_ml_packages[kind])
    assert (model.specificationVersion, model.WhichOneof("Type")) == (7, "mlProgram")


@KINDS
def test_metadata_says_what_the_net_is_and_which_checkpoint_it_came_from(core_ml_packages, kind):
    package = core_ml_packages[kind]
    assert read_exported_metadata(package) == {
        **describe(BY_KIND[kind]),
        "source_hash": file_hash(package.parent / "net.safetensors"),
        "precision": "float32" if kind == "landmark_pose" else "float16",
        "input": "tensor",
        "batch": 1,
    }
    about = model_of(package).description.metadata
    assert kind in about.shortDescription
    assert about.license == read_exported_metadata(package)["licence_note"]


def test_a_package_states_the_licence_of_its_weights(core_ml_packages, tmp_path):
    package = shutil.copytree(core_ml_packages["au_prediction"], tmp_path / "a.mlpackage")
    metadata = describe(AU, licence_note="MIT: for any purpose.")
    source = SourceModel(AU, random_weights(AU, 0), metadata)
    export_coreml._finish(package, source, Variant("coreml"))
    assert model_of(package).description.metadata.license == "MIT: for any purpose."


def test_the_same_checkpoint_gives_the_same_bytes(core_ml_packages, tmp_path):
    """Converted with coremltools' own checks, which the fixture's quick conversion leaves out."""
    package = core_ml_packages["au_prediction"]

    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1,))])
    def another(x):  # earlier work of the process, which moves coremltools' numbers on
        return Builder.cast(x=Builder.const(val=np.float32(1)), dtype="fp16")

    export_to_coreml(package.parent / "net.safetensors", tmp_path / "again.mlpackage")
    assert contents(tmp_path / "again.mlpackage") == contents(package)


@pytest.mark.usefixtures("au_conversion")
def test_an_older_package_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "a.mlpackage"
    (target / "Data").mkdir(parents=True)
    (target / "Data" / "old").write_bytes(b"old")
    (target / "Manifest.json").write_text("{}")
    check = export_to_coreml(random_net(AU), target)
    assert check.passed
    assert check.path == target
    assert "Data/old" not in contents(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mlpackage"]


@pytest.mark.usefixtures("au_conversion")
def test_a_package_that_fails_its_check_leaves_the_older_one(tmp_path):
    target = tmp_path / "a.mlpackage"
    target.mkdir()
    (target / "Manifest.json").write_text("{}")
    with pytest.raises(CheckFailed, match="au_intensities differs by"):
        export_to_coreml(random_net(AU, seed=1), target)
    assert contents(target) == {"Manifest.json": b"{}"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.mlpackage"]


@pytest.mark.usefixtures("au_conversion")
def test_a_package_that_cannot_be_put_in_place_leaves_the_older_one(tmp_path, monkeypatch):
    target = tmp_path / "a.mlpackage"
    target.mkdir()
    (target / "Manifest.json").write_text("{}")
    rename = Path.rename

    def failing(path: Path, to: Path) -> Path:
        if path.name == "new.mlpackage":
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        export_to_coreml(random_net(AU), target)
    assert contents(target) == {"Manifest.json": b"{}"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.mlpackage"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mlpackage")
    with pytest.raises(ExportError, match="opens no file of such a name"):
        export_to_coreml("not read", path)


@pytest.mark.usefixtures("au_conversion")
def test_what_is_no_package_is_never_replaced(tmp_path):
    folder = tmp_path / "notes.mlpackage"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    file = tmp_path / "file.mlpackage"
    file.write_text("also")
    for path in (folder, file):
        with pytest.raises(ExportError, match="is not a Core ML package"):
            export_to_coreml(random_net(AU), path)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_wrong_endings_and_precisions_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"the ending must be \.mlpackage"):
        export_to_coreml(object(), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="'int4', expected one of float32, float16,"):
        export_to_coreml(object(), tmp_path / "a.mlpackage", precision="int4")


def test_on_windows_the_error_says_that_there_is_no_build(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(ExportError, match="no Windows build; use ONNX"):
        export_to_coreml(random_net(LANDMARK), tmp_path / "a.mlpackage")
    assert not list(tmp_path.iterdir())


def test_the_original_tool_s_landmark_net_passes_in_float16(shared_folder, tmp_path):
    """The fixture's own, of random weights, is in float32; its AU net is in float16."""
    path = shared_folder / "reference" / "pyfaceau_landmark_pose_w025.pt"
    with quick_conversion():
        assert export_to_coreml(path, tmp_path / "a.mlpackage").passed

"""What an exported file says about itself, and files that lie."""

import json

import pytest
from wire import message, pair, varint, write_mlpackage, write_onnx

from mlx_faceau.core.artifact_metadata import find_mlmodel, read_exported_metadata
from mlx_faceau.errors import CheckpointError

SETTINGS = {"kind": "au_prediction", "au_names": ["AU01_r"], "text": "ä" * 500}


def test_metadata_of_an_onnx_file_is_found_behind_its_graph(tmp_path):
    assert read_exported_metadata(write_onnx(tmp_path / "a.onnx", SETTINGS)) == SETTINGS


def test_metadata_of_a_core_ml_package_is_found_in_its_description(tmp_path):
    package = write_mlpackage(tmp_path / "a.mlpackage", SETTINGS)
    assert package.is_dir()
    assert find_mlmodel(package).name == "model.mlmodel"
    assert read_exported_metadata(package) == SETTINGS


def test_files_of_other_tools_have_none(tmp_path):
    assert read_exported_metadata(write_onnx(tmp_path / "a.onnx", None)) is None
    assert read_exported_metadata(write_mlpackage(tmp_path / "a.mlpackage", None)) is None


def test_metadata_written_by_the_onnx_library_is_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"author": "x", "mlx-faceau": json.dumps(SETTINGS)})
    onnx.save(model, tmp_path / "a.onnx")
    assert read_exported_metadata(tmp_path / "a.onnx") == SETTINGS


@pytest.mark.parametrize(
    ("data", "message_"),
    [
        (message(14, pair("mlx-faceau", "{}"))[:-1], "cut short"),
        (varint(14 << 3 | 2) + varint(1 << 60), "cut short"),
        (varint(14 << 3 | 2) + b"\xff" * 20, "more than 64 bits"),
        (b"\x0b", "wire type 3"),
        (varint(14 << 3 | 2) + b"\x80", "cut short"),
        (message(14, message(1, b"\xff\xfe") + message(2, "{}")), "codec"),
        (message(14, pair("mlx-faceau", "{")), "not JSON"),
        (message(14, pair("mlx-faceau", "[]")), "not a JSON object"),
        (message(14, pair("mlx-faceau", "[" * 100_000)), "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files_are_refused_in_one_line(tmp_path, data, message_):
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message_) as caught:
        read_exported_metadata(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", '{"rootModelIdentifier": "id", "itemInfoEntries": {"id": {"path": 3}}}'],
)
def test_manifests_that_name_no_model_are_refused(tmp_path, manifest):
    package = write_mlpackage(tmp_path / "a.mlpackage", SETTINGS)
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match="names no model"):
        read_exported_metadata(package)


def test_missing_files_are_named(tmp_path):
    for name in ("a.onnx", "a.mlpackage"):
        with pytest.raises(CheckpointError, match=name):
            read_exported_metadata(tmp_path / name)

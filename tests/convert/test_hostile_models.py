"""Models of strangers: nothing runs, nothing is unpacked, no other file is opened."""

import contextlib
import io
import json
import pickle
import time
import zipfile
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

# ruff: noqa: E402
import wire
from hostile_corpus import TARGETS
from hostile_models import onnx_files, pt_archives

from mlx_faceau.errors import CheckpointError


def test_a_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    data = onnx_files()[1].replace(b"batch", b"\xffatch")
    assert "not a readable ONNX file" in native_refusal("onnx", tmp_path, data)


def native_refusal(name: str, folder: Path, data: bytes) -> str:
    """Like :func:`refusal`, of a reader whose parser is known to survive this input."""
    target = TARGETS[name]
    (folder / "in").mkdir()
    with pytest.raises(target.errors) as caught:
        target.read(folder / "in", data)
    return str(caught.value)


def test_an_onnx_file_s_weights_lie_in_it(tmp_path: Path) -> None:

    model = onnx.load_model_from_string(onnx_files()[1])
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="/etc/passwd")
    weight.data_location = onnx.TensorProto.EXTERNAL
    text = native_refusal("onnx", tmp_path, model.SerializeToString())
    assert "are in another file" in text


def test_a_fixed_batch_of_a_billion_is_refused(tmp_path: Path) -> None:

    model = onnx.load_model_from_string(onnx_files()[0])
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = 10**9
    text = native_refusal("onnx", tmp_path, model.SerializeToString())
    assert "not those of a au_prediction net" in text


def test_a_long_name_in_a_pickle_does_not_hang_torch(tmp_path: Path) -> None:
    """torch searches its refusal for a phrase in a time that grows with the name's square."""
    data = b"\x80\x02ctorch\n" + b"x" * 200_000 + b"\n."
    started = time.monotonic()
    assert "a name of 2000" in native_refusal("pt pickle", tmp_path, data)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("order", ["\x07", "\x1b[2J"])
def test_a_stranger_s_names_give_the_terminal_no_orders(order: str, tmp_path: Path) -> None:
    data = b"\x80\x02ctorch\nevil" + order.encode() + b"name\n."
    text = native_refusal("pt pickle", tmp_path, data)
    assert "refused, because it asks for torch.evil?" in text
    assert text.isprintable()


class MakesAFile:
    """A pickle of this makes a file when it is loaded without care."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return open, (str(self.place), "w")


@pytest.mark.parametrize("where", ["state", "history", "name"])
def test_a_payload_in_a_pt_file_makes_no_file(where: str, tmp_path: Path) -> None:

    trace = tmp_path / "trace"
    payload = MakesAFile(trace)
    contents = {
        "state": {"model_state_dict": payload},
        "history": {"model_state_dict": {"au_head.x": torch.zeros(1)}, "train_history": [payload]},
        "name": {"model_state_dict": {"au_head.x": torch.zeros(1)}, payload: 1},
    }[where]
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    text = native_refusal("pt archive", tmp_path, buffer.getvalue())
    assert "refused, because it asks for" in text
    assert not trace.exists()
    pickle.loads(pickle.dumps(payload)).close()  # the payload itself works: the test is no dud
    assert trace.exists()


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    """Parts called ../../x and /tmp/x: nothing is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pt_archives()[0])) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        for name in ("../escaped", f"{tmp_path}/escaped", "archive/../../escaped"):
            new.writestr(name, b"x")
    before = {*tmp_path.parent.rglob("*")}
    with contextlib.suppress(AssertionError):
        native_refusal("pt archive", tmp_path, buffer.getvalue())
    new_names = {path.name for path in {*tmp_path.parent.rglob("*")} - before}
    assert new_names <= {"in", "net.pt"}


@pytest.mark.parametrize("place", ["../../secret", "/etc/passwd", "link"])
def test_a_manifest_names_no_file_outside(place: str, tmp_path: Path) -> None:
    package = wire.write_mlpackage(tmp_path / "net.mlpackage", {})
    (tmp_path / "secret").write_bytes((package / "Data" / "model.mlmodel").read_bytes())
    (package / "Data" / "link").symlink_to(tmp_path / "secret")
    items = {"itemInfoEntries": {"id": {"path": place}}, "rootModelIdentifier": "id"}
    (package / "Manifest.json").write_text(json.dumps(items))
    from mlx_faceau.core.artifact_metadata import find_mlmodel

    with pytest.raises(CheckpointError, match="names no file of the package"):
        find_mlmodel(package)

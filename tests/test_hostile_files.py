"""Readers of foreign files: mutated corpora, and every input that once broke one, small and inline.

``benchmarks/fuzz.py`` runs the same readers on thousands of inputs.
"""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

for library in ("torch", "h5py", "onnxruntime", "coremltools"):
    pytest.importorskip(library)

# ruff: noqa: E402
import hostile_files
import wire
from hostile_corpus import DEEP, TARGETS, journals, onnx_files, pt_archives, weight_files
from hostile_files import Finding, judge, mutations, warm_up

from mlx_faceau.checkpoint import atomic_file
from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.video import Video, VideoError, read_image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the readers' processes are forked")
PURE = [name for name, target in TARGETS.items() if not target.native]
NATIVE = [name for name, target in TARGETS.items() if target.native]


@pytest.mark.parametrize("name", PURE)
def test_a_reader_accepts_or_refuses_whatever_comes(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    warm_up(target, tmp_path / "in")
    outcomes = {judge(target, tmp_path / "in", target.seeds()[0]).outcome}
    assert outcomes == {"accepted"} or name == "short checkpoint"
    outcomes |= {judge(target, tmp_path / "in", d).outcome for d in mutations(target, 40, 0)}
    assert outcomes <= {"accepted", "refused"}
    assert "refused" in outcomes or not target.errors


def test_readers_before_native_parsers_keep_to_their_errors(tmp_path: Path) -> None:
    """In a process without threads, whose children the parsers may kill."""
    command = [sys.executable, hostile_files.__file__, str(tmp_path), "12", "0", *NATIVE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    lines = result.stdout.splitlines()
    assert len(lines) == len(NATIVE), (lines, result.stderr[-2000:])
    assert all(line.startswith(f"{name}: ") for line, name in zip(lines, NATIVE, strict=True))


def test_the_rule_itself_is_kept_by_force(tmp_path: Path) -> None:
    """What the harness calls a finding."""

    def reader(error: Exception) -> Callable[[Path, bytes], None]:
        def read(folder: Path, data: bytes) -> None:
            raise error

        return read

    place = tmp_path / "in"
    for error, complaint in (
        (KeyError("x"), "builtins.KeyError"),
        (DatasetError(f"{place}/a: one\ntwo"), "no error of one line"),
        (DatasetError("damaged"), "does not name the file"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), "UnicodeDecodeError"),
    ):
        target = hostile_files.Target("made up", list, reader(error), (DatasetError, ValueError))
        with pytest.raises(Finding, match=complaint):
            judge(target, place, b"")


def refusal(name: str, folder: Path, data: bytes) -> str:
    """The text of a reader's refusal."""
    target = TARGETS[name]
    warm_up(target, folder / "in")
    verdict = judge(target, folder / "in", data)
    assert verdict.outcome == "refused"
    return verdict.text


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("manifest", DEEP, "names no model"),
        ("manifest", b'{"rootModelIdentifier": ' + b"9" * 5000 + b"}", "names no model"),
        (
            "manifest",
            b'{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "'
            + b"x/" * 3000
            + b'"}}}',
            "Core ML package",
        ),
        ("settings", DEEP, "not a JSON file"),
        ("settings", b'{"data": ["a"], "lr": 1' + b"0" * 400 + b"}", "expected a number"),
        ("openface csv", b"frame, timestamp\n" + b'"' + b"1" * 200_000 + b'", 2\n', "field larger"),
        ("pdm", b"3\n1\n6\n1 2 3\n3\n1\n6\n1 2 3\n1\n1\n6\ninf\n", "not finite"),
        ("onnx metadata", wire.message(14, wire.pair("mlx-faceau", "[" * 50_000)), "no JSON"),
        (
            "onnx metadata",
            wire.message(14, wire.pair("mlx-faceau", '{"version": ' + "9" * 5000 + "}")),
            "no JSON",
        ),
        ("onnx metadata", b"\x08\x01" * 200_000, "more than 100000 fields"),
        ("core ml weights", b"", "no record"),
        ("short checkpoint", b"\x88\x13\0\0\0\0\0\0" + b"9" * 5000, "no mlx-faceau settings"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_once_ended_a_reader_is_refused(
    name: str, data: bytes, complaint: str, tmp_path: Path
) -> None:
    assert complaint in refusal(name, tmp_path, data)


def test_a_file_of_tiny_fields_is_given_up_early(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x01" * 4_000_000)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="fields"):
        TARGETS["onnx metadata"].read(tmp_path, (tmp_path / "net.onnx").read_bytes())
    assert time.monotonic() - started < 5


def test_damaged_records_of_accuracy_count_as_none(tmp_path: Path) -> None:
    from mlx_faceau.recorded_accuracy import recorded_accuracy

    for text in ('{"epochs": [{"validation": {"loss": 1}}]}', '{"epochs": 3}', DEEP.decode()):
        (tmp_path / "training_history.json").write_text(text)
        (lines,) = recorded_accuracy("au_prediction", "a", tmp_path, tmp_path)
        assert lines.startswith("Not measured.")


# --- pictures and videos


def a_picture(ending: str, width: int, height: int) -> bytes:
    shades = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(ending, shades)[1].tobytes()


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_a_picture_s_size_is_known_before_it_is_decoded(ending: str) -> None:
    from mlx_faceau.picture_size import picture_size

    for size in ((31, 17), (300, 2)):
        data = a_picture(ending, *size)
        assert picture_size(data) == size
        cut = [picture_size(data[:length]) for length in range(0, len(data), 7)]
        assert set(cut) <= {None, size}


def test_lossless_and_extended_webp_say_their_size() -> None:
    from mlx_faceau.picture_size import picture_size

    image = np.zeros((19, 400, 4), np.uint8)
    image[..., 3] = np.arange(400) % 256
    for quality in (101, 80):  # above 100 is lossless
        data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        assert picture_size(data) == (400, 19)


def test_a_few_bytes_that_claim_gigabytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(a_picture(".png", 8, 8))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.png: it claims 30000 x 30000 pixels"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    data = a_picture(".jpg", 16, 16)
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == (16, 16, 3)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 1000)
    with pytest.raises(VideoError, match="not a readable picture"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_no_playlist_leads_to_other_files(text: str, tmp_path: Path) -> None:
    from blobs import write_video

    write_video(tmp_path / "real.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (tmp_path / "clip.mp4").write_text(text)
    with pytest.raises(VideoError, match=r"clip\.mp4: cannot be read as a video; it is none of"):
        Video(tmp_path / "clip.mp4")


# --- training files


def changed_hdf5(path: Path, change: Callable[[object], None]) -> Path:
    import h5py
    from hostile_corpus import hdf5_files

    path.write_bytes(hdf5_files()[2])
    with h5py.File(path, "a") as file:
        change(file)
    return path


def link_outside(file) -> None:
    import h5py

    del file["landmarks"]
    file["landmarks"] = h5py.ExternalLink("other.h5", "/landmarks")


def keep_outside(file) -> None:
    del file["landmarks"]
    raw = [(str(Path(file.filename).with_name("raw.bin")), 0, 3 * 136 * 4)]
    file.create_dataset("landmarks", (3, 68, 2), "f4", external=raw)


def map_outside(file) -> None:
    import h5py

    del file["landmarks"]
    layout = h5py.VirtualLayout((3, 68, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "landmarks", (3, 68, 2))
    file.create_virtual_dataset("landmarks", layout)


@pytest.mark.parametrize("change", [link_outside, keep_outside, map_outside])
def test_a_training_file_leads_to_no_other(change: Callable, tmp_path: Path) -> None:
    changed_hdf5(tmp_path / "other.h5", lambda file: None)
    (tmp_path / "raw.bin").write_bytes(bytes(3 * 136 * 4))
    path = changed_hdf5(tmp_path / "faces.h5", change)
    with pytest.raises(DatasetError, match="'landmarks' lies in another file"):
        FaceDataset(path)


def claim_rows(file) -> None:
    shape = (10**9, 112, 112, 3)
    del file["images"]
    file.create_dataset("images", shape, "u1", chunks=(1, 112, 112, 3))


def claim_chunk(file) -> None:
    del file["images"]
    face = (112, 112, 3)
    chunk = (50_000, *face)
    file.create_dataset("images", (3, *face), "u1", chunks=chunk, maxshape=(None, *face))


def claim_text(file) -> None:
    del file["metadata/video_names"]
    file.create_dataset("metadata/video_names", (3,), "S1000000000", chunks=(1,))


@pytest.mark.parametrize("change", [claim_rows, claim_chunk, claim_text])
def test_sizes_are_checked_before_memory_is_taken(change: Callable, tmp_path: Path) -> None:
    path = changed_hdf5(tmp_path / "faces.h5", change)
    with pytest.raises(DatasetError, match=r"claims \d+ bytes"):
        FaceDataset(path)


def test_a_log_of_other_columns_is_refused(tmp_path: Path) -> None:
    (log,) = journals()
    for old, new, complaint in (
        (b'"landmarks"', b'"landmarkz"', "'landmarkz'"),
        (b"[1,68,2]", b"[1,34,4]", "landmarks is float32 of shape"),
        (b'["a"]', b"[123]", "holds no texts"),
        (b'["a"]', b"[[[[[", "no samples of ours"),
    ):
        text = refusal("writer's log", tmp_path, log.replace(old, new))
        assert complaint in text
        assert "faces.h5.partial" in text


# --- models


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
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(onnx_files()[1])
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="/etc/passwd")
    weight.data_location = onnx.TensorProto.EXTERNAL
    text = native_refusal("onnx", tmp_path, model.SerializeToString())
    assert "lie in another file" in text


def test_a_fixed_batch_of_a_billion_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
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


class MakesAFile:
    """A pickle of this makes a file when it is loaded without care."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return open, (str(self.place), "w")


@pytest.mark.parametrize("where", ["state", "history", "name"])
def test_a_payload_in_a_pt_file_makes_no_file(where: str, tmp_path: Path) -> None:
    import torch

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
    from mlx_faceau.exported import find_mlmodel

    with pytest.raises(CheckpointError, match="names no file of the package"):
        find_mlmodel(package)


@pytest.mark.parametrize(
    "place", ["@model_path/../weights/weight.bin", "/etc/passwd", "weight.bin"]
)
def test_a_weight_record_names_no_other_file(place: str, tmp_path: Path) -> None:
    from core_ml_program import tiny_model
    from hostile_corpus import read_package

    model = tiny_model(blob=True)
    block = model.mlProgram.functions["main"].block_specializations["CoreML6"]
    blobs = [
        operation.attributes["val"].blobFileValue
        for operation in block.operations
        if operation.type == "const"
        and operation.attributes["val"].WhichOneof("value") == "blobFileValue"
    ]
    (blob,) = blobs
    read_package(tmp_path / "sound", model.SerializeToString(), weight_files()[0])
    blob.fileName = place
    with pytest.raises(CheckpointError, match="lies in the unknown file"):
        read_package(tmp_path / "hostile", model.SerializeToString(), weight_files()[0])


def test_a_refused_write_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, atomic_file(tmp_path / "a/b.csv"):
        pass
    assert caught.value.filename == str(tmp_path / "a/b.csv")

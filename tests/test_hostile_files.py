"""Readers of foreign files: mutated corpora, and every input that once broke one, small and inline.

``benchmarks/fuzz.py`` runs the same readers on thousands of inputs.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

for library in ("torch", "h5py", "onnxruntime", "coremltools"):
    pytest.importorskip(library)

# ruff: noqa: E402
import hostile_files
import wire
from hostile_corpus import TARGETS
from hostile_files import Finding, judge, mutations, warm_up
from hostile_models import DEEP

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.errors import CheckpointError, DatasetError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the readers' processes are forked")
PURE = [name for name, target in TARGETS.items() if not target.native]
NATIVE = [name for name, target in TARGETS.items() if target.native]


@pytest.mark.parametrize("name", PURE)
def test_a_reader_accepts_or_refuses_whatever_comes(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    warm_up(target, tmp_path / "in")
    outcomes = {judge(target, tmp_path / "in", target.seeds()[0]).outcome}
    assert outcomes == {"accepted"} or name == "short checkpoint"
    outcomes |= {judge(target, tmp_path / "in", d).outcome for d in mutations(target, 25, 0)}
    assert outcomes <= {"accepted", "refused"}
    assert "refused" in outcomes or not target.errors


def test_readers_before_native_parsers_keep_to_their_errors(tmp_path: Path) -> None:
    """In a process without threads, whose children the parsers may kill."""
    command = [sys.executable, hostile_files.__file__, str(tmp_path), "6", "0", *NATIVE]
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
        (ValueError(f"{place}/a: one\ntwo"), "no error of one line"),
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
        ("onnx metadata", wire.message(14, wire.pair("mlx-faceau", "[" * 50_000)), "not JSON"),
        (
            "onnx metadata",
            wire.message(14, wire.pair("mlx-faceau", '{"version": ' + "9" * 5000 + "}")),
            "not JSON",
        ),
        ("onnx metadata", b"\x08\x01" * 200_000, "more than 100000 fields"),
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
    from mlx_faceau.output.model_card import recorded_accuracy

    metadata = {"kind": "au_prediction", "data": {"hash": "b"}}
    metadata["progress"] = {"epoch": 1, "batch": 0}
    data = '{"data": {"hash": "b"}, "epochs": '
    for epochs in ('[{"epoch": 1, "validation": {"loss": 1}}]}', "3}", "[{}]}", DEEP.decode()):
        (tmp_path / "training_history.json").write_text(data + epochs)
        *damaged, last = recorded_accuracy(metadata, {"a"}, tmp_path, tmp_path)
        assert last.startswith("Not measured.")
        assert all("is damaged" in line for line in damaged)


def test_a_refused_write_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, atomic_file(tmp_path / "a/b.csv"):
        pass
    assert caught.value.filename == str(tmp_path / "a/b.csv")


def test_the_command_line_prints_no_orders_to_the_terminal() -> None:
    from mlx_faceau.cli.main import one_line

    assert one_line(ValueError("a\x1b[2Jb\r\nc")) == "a?[2Jb c"

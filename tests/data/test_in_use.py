"""A training file that another program has open for writing is said to be in use, not damaged."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
from random_nets import AU, write_checkpoint
from training_files import arrays, write

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.errors import DatasetError

HOLD = """
import sys, h5py
file = h5py.File(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
if sys.argv[2] == "w":
    file["images"] = range(3)
print("open", flush=True)
sys.stdin.read()
"""
IN_USE = ": in use by another program, which is writing it; "


@contextmanager
def held(path: Path, mode: str = "r+", options: str = "{}") -> Iterator[subprocess.Popen[str]]:
    """Another program has the file open."""
    command = [sys.executable, "-c", HOLD, str(path), mode, options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        try:
            yield program
        finally:
            program.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "faces.h5", arrays())


@pytest.mark.parametrize(
    ("mode", "options"),
    [("r+", "{}"), ("a", "{}"), ("w", "{}"), ("w", "{'libver': 'latest'}")],
    ids=["r+", "a", "w", "latest"],
)
def test_a_file_that_is_being_written_is_in_use_and_readable_afterwards(path, mode, options):
    with held(path, mode, options), pytest.raises(DatasetError) as caught:
        FaceDataset(path)
    assert str(caught.value).startswith(f"{path}{IN_USE}")
    if mode != "w":  # a new file that was never finished is damaged
        assert len(FaceDataset(path)) == 40


def test_the_mark_of_a_writer_without_locks_counts_too(path):
    with (
        held(path, "w", "{'libver': 'latest', 'locking': False}"),
        pytest.raises(DatasetError, match=r"in use by another program, .*h5clear -s"),
    ):
        FaceDataset(path)


def test_a_file_that_this_program_writes_without_locks_is_in_use(path):
    with (
        h5py.File(path, "r+", locking=False),
        pytest.raises(DatasetError, match="in use in this very program"),
    ):
        FaceDataset(path)


COMMANDS = {
    "check": ["data", "check", "FILE"],
    "against": ["data", "check", "OTHER", "--against", "FILE"],
    "stats": ["data", "stats", "FILE"],
    "preview": ["data", "preview", "FILE", "--output", "preview.png"],
    "merge": ["data", "merge", "OTHER", "FILE", "--output", "out.h5"],
    "split": ["data", "split", "FILE", "--output", "parts"],
    "convert": ["data", "convert", "FILE", "--output", "out.h5"],
    "generate": ["data", "generate", "clip.mp4", "--output", "FILE"],
    "train": ["train", "au", "--data", "FILE", "--output", "run"],
    "train on several": ["train", "au", "--data", "OTHER", "FILE", "--output", "run"],
    "evaluate": ["evaluate", "net.safetensors", "--data", "FILE"],
    "validate": ["train", "au", "--data", "OTHER", "--val-data", "FILE", "--output", "run"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Inputs of all commands; another program has faces.h5 open."""
    folder = tmp_path_factory.mktemp("in_use")
    write(folder / "faces.h5", arrays())
    write(folder / "other.h5", arrays(seed=1))
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftyp")
    write_checkpoint(folder / "net.safetensors", AU)
    with held(folder / "faces.h5"):
        yield folder


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_says_so(folder, monkeypatch, capfd, command):
    monkeypatch.chdir(folder)
    path = Path("faces.h5")
    places = {"FILE": "faces.h5", "OTHER": "other.h5"}
    before = path.read_bytes()
    assert main([places.get(word, word) for word in command]) == 2
    told = capfd.readouterr().err
    assert told.splitlines()[-1].startswith(f"mlx-faceau: faces.h5{IN_USE}")
    assert "damaged" not in told
    assert path.read_bytes()[100:] == before[100:]  # what comes first are the other one's marks


def test_a_writer_is_told_before_its_first_sample(path):
    with held(path), pytest.raises(DatasetError, match="in use by another program"):
        TrainingDataWriter(path)

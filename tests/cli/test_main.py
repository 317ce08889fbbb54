"""The command line's frame: exit status, errors on one line, what --help costs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlx_faceau.cli import main as command_line
from mlx_faceau.cli.main import COMMANDS, build_parser, main, one_line
from mlx_faceau.errors import BackendError, MissingDependency


@pytest.fixture
def failing(monkeypatch):
    """Make ``mlx-faceau info`` raise what the test gives."""

    def install(error: BaseException) -> None:
        def run(args):
            raise error

        fake = SimpleNamespace(add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(command_line, "COMMANDS", {"info": "fails"})
        monkeypatch.setattr(command_line, "import_module", lambda name, package: fake)

    return install


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (BackendError("no file\n that   it reads"), 2, "mlx-faceau: no file that it reads\n"),
        (ValueError("--every is 0"), 2, "mlx-faceau: --every is 0\n"),
        (FileNotFoundError(2, "No such file", "a.h5"), 2, "mlx-faceau: a.h5: No such file\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            MissingDependency("h5py", extra="train"),
            2,
            'mlx-faceau: h5py is not installed; run: pip install "mlx-faceau[train]"\n',
        ),
    ],
    ids=["ours", "argument", "system", "interrupted", "library"],
)
def test_each_kind_of_error_is_one_line_and_a_status(failing, capsys, error, status, line):
    failing(error)
    assert main(["info"]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_a_library_that_a_command_needs_is_named_with_its_extra(failing, capsys):
    failing(ModuleNotFoundError("No module named 'h5py'", name="h5py"))
    assert main(["info"]) == 2
    line = 'mlx-faceau: h5py is not installed; run: pip install "mlx-faceau[train]"\n'
    assert capsys.readouterr().err == line
    failing(ModuleNotFoundError("No module named 'mlx_faceau.typo'", name="mlx_faceau.typo"))
    with pytest.raises(ModuleNotFoundError):
        main(["info"])


def test_an_error_in_the_program_is_not_hidden(failing):
    failing(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        main(["info"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 37.5 GiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than ..."),
    ],
    ids=["numpy", "torch", "cuda", "mlx"],
)
def test_too_little_memory_is_one_line_with_advice(failing, capsys, error):
    failing(error)
    assert main(["info"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("mlx-faceau: out of memory (")
    assert line.count("\n") == 1
    assert "--batch-size" in line


def test_other_runtime_errors_are_not_taken_for_it(failing):
    failing(RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        main(["info"])


def test_an_error_without_text_is_named_by_its_type():
    assert one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "--nonsense"]], ids=len)
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: mlx-faceau" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: mlx-faceau {command}" in capsys.readouterr().out


def test_the_parser_alone_loads_no_library():
    code = "import sys; from mlx_faceau.cli.main import build_parser; build_parser(); print(*[n for"
    code += " n in ('numpy', 'cv2', 'mlx', 'torch', 'onnx', 'h5py', 'tqdm') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("\n", "")


def test_a_reader_that_goes_away_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mlx_faceau", "info"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_version_is_the_package_s(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        build_parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"mlx-faceau {version('mlx-faceau')}\n"

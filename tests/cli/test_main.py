"""The command line's frame: exit status, errors on one line, what --help costs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_faceau.cli import main as command_line
from mlx_faceau.cli.main import COMMANDS, build_parser, main, one_line
from mlx_faceau.errors import BackendError, MissingDependency, UsageError
from mlx_faceau.video.detectors import open_detector


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
        (UsageError("--frame-step is 0"), 2, "mlx-faceau: --frame-step is 0\n"),
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


@pytest.mark.parametrize(
    ("words", "usage", "hint"),
    [
        (["export", "net", "--presicion", "int8"], "mlx-faceau export", "--precision"),
        (["export", "net", "--too=onnx"], "mlx-faceau export", "--to"),
        (["exprot", "net"], "mlx-faceau ", "export"),
        (["--verison"], "mlx-faceau ", "--version"),
        (["predict", "--ovrlay"], "mlx-faceau predict", "--overlay"),
        (["webcam"], "mlx-faceau ", "predict webcam"),
    ],
)
def test_a_typo_gets_the_usage_of_its_command_and_a_suggestion(capsys, words, usage, hint):
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith(f"usage: {usage}")
    assert error.endswith(f"; did you mean {hint}?\n")


def test_a_value_after_a_flag_that_takes_none_is_explained(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "photo.jpg", "--report", "out.html"])
    assert "unrecognized arguments: out.html; name all inputs side by" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["predict", "x.h5", "--format", "xlsx"], ["train", "--data", "x.h5"]]
)
def test_a_wrong_choice_gets_no_hint_about_inputs(capsys, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    Path("x.h5").touch()
    with pytest.raises(SystemExit):
        main(words)
    error = capsys.readouterr().err
    assert "invalid choice" in error
    assert "side by side" not in error
    assert "did you mean" not in error


def test_nothing_is_suggested_where_no_flag_is_near(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "photo.jpg", "--calibrate"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: --calibrate\n")


def test_without_arguments_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "measure a portrait" in capsys.readouterr().err


def test_a_misspelt_file_gets_the_name_beside_it(tmp_path, capsys):
    (tmp_path / "checkpoint_best.safetensors").touch()
    assert main(["info", str(tmp_path / "chekpoint_best.safetensor")]) == 2
    assert capsys.readouterr().err.count("; did you mean checkpoint_best.safetensors?") == 1


def test_names_that_share_only_their_ending_are_not_suggested(tmp_path, capsys):
    (tmp_path / "ph.csv").touch()
    assert main(["info", str(tmp_path / "who.csv")]) == 2
    error = capsys.readouterr().err
    assert "no such file" in error
    assert "did you mean" not in error


def test_the_misspelt_built_in_pair_gets_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["info", "buitlin"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean builtin?\n")


def test_a_library_that_a_command_needs_is_named_with_its_extra(failing, capsys):
    failing(ModuleNotFoundError("No module named 'h5py'", name="h5py"))
    assert main(["info"]) == 2
    line = 'mlx-faceau: h5py is not installed; run: pip install "mlx-faceau[train]"\n'
    assert capsys.readouterr().err == line


DEFECTS = [
    ZeroDivisionError("a defect"),
    ValueError("shapes (2,3) and (2,3) not aligned"),
    TypeError("a defect"),
    KeyError("landmarks"),
    RuntimeError("a defect"),
    ImportError("cannot import name 'typo' from 'mlx_faceau'", name="mlx_faceau"),
    ModuleNotFoundError("No module named 'mlx_faceau.typo'", name="mlx_faceau.typo"),
]


@pytest.mark.parametrize("error", DEFECTS, ids=lambda error: type(error).__name__)
def test_a_defect_is_one_line_that_says_where_and_asks_for_a_report(failing, capsys, error):
    failing(error)
    assert main(["info"]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"mlx-faceau: internal error: {type(error).__name__}: ")
    assert "(test_main.py, line " in line
    assert "please report it" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-v", "info"], ["info", "-v"], ["info", "--verbose"]])
def test_the_traceback_of_a_defect_is_shown_when_asked_for(failing, capsys, arguments):
    failing(ValueError("a defect"))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "in run\n    raise error\nValueError: a defect\nmlx-faceau: internal error" in error


def test_a_user_s_function_that_fails_is_named_and_shown_when_asked_for(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "myfaces.py").write_text("def find(frame):\n    return frame @ frame[:2]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fake = SimpleNamespace(
        add_arguments=lambda parser: None,
        run=lambda args: open_detector("myfaces:find").detect(np.zeros((3, 4))),
    )
    monkeypatch.setattr(command_line, "import_module", lambda name, package: fake)
    assert main(["info"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("mlx-faceau: detector myfaces:find: ValueError: matmul")
    assert line.endswith("myfaces.py, line 2)\n")
    assert line.count("\n") == 1
    assert main(["info", "-v"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert "return frame @ frame[:2]" in error


@pytest.mark.parametrize("name", ["data", "predict"])
def test_verbose_is_taken_by_every_command_and_action(name):
    words = {"data": ["data", "check", "a.h5"], "predict": ["predict", "a.jpg"]}[name]
    for place in range(len(words) + 1):
        args = build_parser().parse_args([*words[:place], "-v", *words[place:]])
        assert args.verbose
    assert not hasattr(build_parser().parse_args(words), "verbose")


def test_only_errors_that_the_user_can_mend_are_raised_by_name():
    """A ValueError is a defect to the command line: parsers that catch their own may raise it."""
    own = {"artifact_metadata.py", "pyfaceau.py"}
    package = Path(command_line.__file__).parents[1]
    raising = {
        path.name for path in package.rglob("*.py") if "raise ValueError(" in path.read_text()
    }
    assert raising <= own


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


@pytest.mark.parametrize("command", ["predict", "train au", "train landmark-pose"])
def test_the_basic_options_come_first_and_fit_on_a_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    basic, _, advanced = capsys.readouterr().out.partition("\nadvanced")
    assert "basic options:" in basic
    assert advanced
    assert basic.count("\n") <= 40


def test_the_parser_alone_loads_no_library():
    code = "import sys; from mlx_faceau.cli.main import build_parser; build_parser(); print(*[n for"
    code += " n in ('numpy', 'cv2', 'mlx', 'torch', 'onnx', 'h5py', 'tqdm') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("\n", "")


def test_a_reader_that_goes_away_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    command = ["data", "generate", "video.mp4", "--output", "faces.h5", "--limit", "help"]
    command = [sys.executable, "-m", "mlx_faceau", *command]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows closes no standard streams so")
def test_closed_standard_streams_are_no_error_and_no_file_gets_their_number(tmp_path):
    code = """
import os, sys
from types import SimpleNamespace
from mlx_faceau.cli import main as command_line

def run(args):
    print("lost")
    sys.stderr.write("lost")
    with open("result", "w") as file:
        file.write(str(file.fileno() > 2))
    return 0

fake = SimpleNamespace(add_arguments=lambda parser: None, run=run)
command_line.import_module = lambda name, package: fake
sys.exit(command_line.main(["info"]))
"""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "result").read_text() == "True"


@pytest.mark.skipif(os.name == "nt", reason="Windows ends programs at once")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_program_that_is_ended_leaves_no_temporary_file(tmp_path, name):
    code = """
import sys, time
from types import SimpleNamespace
from mlx_faceau.cli import main as command_line
from mlx_faceau.core.atomic_io import atomic_file

def run(args):
    with atomic_file("result"):
        print("ready", flush=True)
        time.sleep(60)

fake = SimpleNamespace(add_arguments=lambda parser: None, run=run)
command_line.import_module = lambda name, package: fake
sys.argv[1:] = ["info"]
sys.exit(command_line.main())
"""
    command = [sys.executable, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.Signals[name])
        assert process.communicate() == ("", "interrupted\n")
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_the_version_is_the_package_s(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        build_parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"mlx-faceau {version('mlx-faceau')}\n"

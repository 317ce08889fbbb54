"""Completion in the shell: asked of a real bash, which has read the script."""

import shutil
import subprocess
import sys

import pytest

from mlx_faceau.cli.main import COMMANDS, main

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
complete_with=$(complete -p mlx-faceau | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$complete_with" mlx-faceau "${COMP_WORDS[$COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory):
    """What the tab key offers after some words, the last of which may be unfinished."""
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "faces.h5").touch()
    (folder / "video").mkdir()
    command = [sys.executable, "-m", "mlx_faceau", "--print-completion", "bash"]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (folder / "completion").write_text(script)

    def complete(*words: str) -> list[str]:
        arguments = [bash, "-c", ASK, "bash", "./completion", "mlx-faceau", *words]
        asked = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
        return asked.stdout.split()

    return complete


def test_the_first_word_is_a_command(completed) -> None:
    assert set(COMMANDS) <= set(completed(""))
    assert completed("ev") == ["evaluate"]


def test_flags_of_a_command_and_of_its_actions_are_offered(completed) -> None:
    assert completed("train", "au", "--ccc") == ["--ccc-weight"]
    assert "--label-model" in completed("data", "generate", "--la")


def test_choices_of_a_flag_are_offered(completed) -> None:
    assert completed("predict", "--backend", "co") == ["coreml"]


def test_free_text_is_completed_as_files(completed) -> None:
    assert completed("train", "au", "--data", "fa") == ["faces.h5"]
    assert completed("info", "vi") == ["video"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_is_printed_for_each_shell(shell, capsys) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", shell])
    assert stopped.value.code == 0
    assert "ccc-weight" in capsys.readouterr().out


def test_without_shtab_the_line_that_installs_it_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    line = 'mlx-faceau: shtab is not installed; run: pip install "mlx-faceau[completion]"\n'
    assert capsys.readouterr() == ("", line)

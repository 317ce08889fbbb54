"""Every command on the pages is one that the real parser takes; every flag named exists."""

import argparse
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import pytest
from doc_pages import NAMES, REPOSITORY, blocks, inline_code

from mlx_faceau.cli.main import build_parser

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
WITH_SHELL = [name for name in NAMES if blocks(REPOSITORY / name, "sh")]
# python -m NAME -> the command it equals
MODULES = {
    "mlx_faceau": [],
    "mlx_faceau.train_landmark_pose": ["train", "landmark-pose"],
    "mlx_faceau.train_au_prediction": ["train", "au"],
}
# Flags on the pages that belong to other programs.
FOREIGN_FLAGS = {"--array", "--extra-index-url", "--strict"}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command: lines joined at backslashes, comments gone."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ("<", ">", ">>"):
                words.append(word)
            elif words[-1:] in (["<"], [">"], [">>"]):
                words.pop()  # and the file behind it
            elif set(word) <= set("();<>|&"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def arguments(words: list[str]) -> list[str] | None:
    """What our program is given, or None if a command is another program's."""
    if "mlx-faceau" in words[:1] or words[0].endswith("/mlx-faceau"):
        return words[1:]
    if "mlx-faceau" in words:  # behind xargs, time and the like
        return words[words.index("mlx-faceau") + 1 :]
    if words[0].startswith("python") and words[1:2] == ["-m"] and words[2] in MODULES:
        return [*MODULES[words[2]], *words[3:]]
    return None


@pytest.mark.parametrize("name", WITH_SHELL)
def test_each_command_of_a_page_is_understood(name: str) -> None:
    for block in blocks(REPOSITORY / name, "sh"):
        for words in commands(block.text):
            given = arguments(words)
            if given is None:
                continue
            # Numbers of shards come from the shell, "..." stands for what was said before.
            given = [re.sub(r"\$\w+|\{\}", "1", word) for word in given if word != "..."]
            assert status_of(given) == 0, f"{name}, line {block.line}: {words}"


def status_of(given: list[str], parser: argparse.ArgumentParser | None = None) -> object:
    """What the parser ends with: 0 where it understands, or has printed what was asked for."""
    try:
        (parser or build_parser()).parse_args(given)
    except SystemExit as stopped:
        return stopped.code
    return 0


@pytest.mark.parametrize("name", WITH_SHELL)
def test_each_shell_block_is_proper_shell(name: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    for block in blocks(REPOSITORY / name, "sh"):
        checked = subprocess.run([bash, "-n"], input=block.text, text=True, capture_output=True)
        assert checked.returncode == 0, f"{name}, line {block.line}: {checked.stderr}"


@pytest.mark.parametrize("name", NAMES)
def test_each_extra_that_pip_is_asked_for_exists(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    named = re.findall(r"(?:mlx-faceau|[\"']\.)\[([\w,-]+)\]", text)
    extras = {extra for group in named for extra in group.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", NAMES)
def test_each_command_in_a_sentence_is_understood_as_far_as_it_goes(name: str) -> None:
    parser = build_parser()
    demand_nothing(parser)
    for code in inline_code(REPOSITORY / name):
        if code.startswith("mlx-faceau ") and "COMMAND" not in code:
            given = [word for word in shlex.split(code)[1:] if word != "..."]
            assert status_of(given, parser) == 0, code


def demand_nothing(parser: argparse.ArgumentParser) -> None:
    """Let a parser take a part of a command."""
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                demand_nothing(command)
        elif not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else action.nargs or "?"


def all_flags(parser: argparse.ArgumentParser) -> set[str]:
    flags = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags = flags.union(*map(all_flags, action.choices.values()))
    return flags


# The changelog names options that are gone.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_each_flag_that_is_named_exists(name: str) -> None:
    named = {
        flag
        for code in inline_code(REPOSITORY / name)
        for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code)
    }
    assert named <= all_flags(build_parser()) | FOREIGN_FLAGS


def test_the_walk_sees_commands_behind_pipes_and_backslashes() -> None:
    text = "mlx-faceau info > mlx-faceau\nseq 4 | xargs -I{} mlx-faceau info \\\n  --json  # all\n"
    text += "python -m mlx_faceau info"
    given = [found for words in commands(text) if (found := arguments(words)) is not None]
    assert given == [["info"], ["info", "--json"], ["info"]]

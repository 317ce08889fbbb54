"""``mlx-faceau --print-completion SHELL``: a script that completes commands, flags and files."""

import argparse
from collections.abc import Sequence
from typing import Any

from mlx_faceau.errors import MissingDependency

SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """Prints the script for the shell that is named, and ends the program.

    ``const`` builds the whole parser: the one at hand may lack the flags of subcommands.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            text = script(self.const(), str(values))
        except MissingDependency as error:
            parser.exit(2, f"mlx-faceau: {error}\n")
        print(text)
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a parser.

    Args:
        parser: the whole parser; what it may be given as free text is completed as files.
        shell: one of ``SHELLS``.

    Raises:
        MissingDependency: without shtab, which writes the script.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise MissingDependency("shtab", extra="completion") from None
    _complete_files(parser, shtab.FILE)
    return str(shtab.complete(parser, shell))


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type in (None, str) and action.choices is None and action.nargs != 0:
            action.complete = files  # type: ignore[attr-defined]

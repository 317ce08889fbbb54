"""Writes the command line's page from the parsers: python docs/scripts/cli_reference.py"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mlx_faceau.cli.main import build_parser

PAGE = Path(__file__).resolve().parents[1] / "cli.md"
MARKER = "<!-- written by docs/scripts/cli_reference.py -->"
# Their defaults depend on the machine.
MACHINE_DEPENDENT = ("framework",)


def page(text: str) -> str:
    """The page's text with the reference behind the marker."""
    return f"{text.partition(MARKER)[0]}{MARKER}\n\n{reference()}"


def reference() -> str:
    """Markdown with a section for each command."""
    return "\n".join(line for parser in commands(build_parser()) for line in section(parser))


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser's commands, and below each one its own, in the order of the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from commands(command)


def section(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"{'##' if parser.prog.count(' ') < 2 else '###'} {parser.prog}\n"
    if parser.description:
        description = re.sub(r"\s+", " ", parser.description).strip()
        yield f"{description[0].upper()}{description[1:].rstrip('.')}.\n"
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS
            and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
            and action.dest != "verbose"
        ]
        if not actions:
            continue
        if group.title not in ("options", "positional arguments"):
            yield f"*{group.title.rstrip(':')}*\n"
        yield "| argument | meaning |\n|---|---|"
        for action in actions:
            yield f"| {name_of(action)} | {help_of(parser, action)} |"
        yield ""


def name_of(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        formatter = argparse.HelpFormatter("")
        default = action.dest.upper() if action.option_strings else action.dest
        value = formatter._format_args(action, default)
    names = [f"{name} {value}".rstrip() for name in action.option_strings] or [value]
    return ", ".join(f"`{name}`" for name in names).replace("|", "\\|")


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    if action.dest in MACHINE_DEPENDENT:
        text = re.sub(r" \(default: [^)]*\)", "", text)
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE}\n")

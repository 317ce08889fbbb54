"""The command line's page, written from the parser whenever the pages are built (a MkDocs hook)."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from mlx_faceau.cli.main import build_parser

PAGE, MARKER = "cli.md", "<!-- commands -->"
WIDTH = 92  # characters a line of help


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs with each page: put the commands where the marker stands."""
    return markdown.replace(MARKER, reference()) if page.file.src_uri == PAGE else markdown


def reference() -> str:
    """Markdown with a section for each command: its help, as the program prints it."""
    parts = []
    for parser in commands(build_parser()):
        parser.formatter_class = partial(  # type: ignore[assignment]
            argparse.HelpFormatter, width=WIDTH, max_help_position=28
        )
        level = "##" if parser.prog.count(" ") < 2 else "###"
        parts.append(f"{level} {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```")
    return "\n\n".join(parts)


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and, below it, those of its commands, in the order of the help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands(command)

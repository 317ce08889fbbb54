"""Every message that the troubleshooting page quotes is one that the code prints."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from doc_pages import DOCS, REPOSITORY, blocks

FOLDERS = ("mlx_faceau", "convert", "torch_fallback")
LEAST_TEXT = 12  # letters of a template that stand fixed; shorter ones would fit anything
LONGEST = 400
LEAST_SHARE = 0.3  # of a line's letters; the others are names and numbers
QUOTED = [
    line
    for block in blocks(DOCS / "troubleshooting.md", "text")
    for line in block.text.splitlines()
]
ANYTHING = "\0"


@cache
def templates() -> list[str]:
    """All texts of the code, a placeholder where something is put in."""
    trees = (
        ast.parse(path.read_text("utf-8"))
        for folder in FOLDERS
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    )
    # The page says once that this stands before every line.
    found = [text.removeprefix("mlx-faceau: ") for tree in trees for text in texts(tree)]
    return [text for text in found if len(text) <= LONGEST]  # longer ones are docstrings


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values
            ]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[-.\d]*[sdfg]", ANYTHING, node.value).replace("%%", "%")


def is_printed(line: str, known: list[str]) -> bool:
    """Whether a line, ``...`` standing for anything, is what some template gives.

    A message is often put behind a name and a colon by another one, so its rest counts too.
    """
    shown = line.replace("...", ANYTHING)
    return any(
        shares_text(wanted, template) and common_text(wanted, template) >= LEAST_SHARE
        for wanted in (shown, shown.partition(": ")[2])
        for template in known
    )


def shares_text(line: str, template: str) -> bool:
    """Whether enough of the template's fixed text stands in the line as it is."""
    return not runs(line).isdisjoint(runs(template))


@cache
def runs(text: str) -> frozenset[str]:
    """Every piece of ``LEAST_TEXT`` letters of a text's fixed parts."""
    return frozenset(
        part[start : start + LEAST_TEXT]
        for part in text.split(ANYTHING)
        for start in range(len(part) - LEAST_TEXT + 1)
    )


def common_text(line: str, template: str) -> float:
    """The share of a line's own letters that a template gives; 0 where it cannot give the line.

    Placeholders of either side stand for any text of the other; the best way of doing so counts.
    """
    impossible = -len(line) - 1
    best = [0, *(impossible for _ in template)]
    for n, b in enumerate(template, start=1):
        best[n] = best[n - 1] if b == ANYTHING else impossible
    for a in line:
        row = [best[0] if a == ANYTHING else impossible]
        for n, b in enumerate(template, start=1):
            skipped = [best[n], row[-1]] if ANYTHING in (a, b) else []
            row.append(max([*skipped, best[n - 1] + 1 if a == b else impossible]))
        best = row
    return best[-1] / max(1, len(line.replace(ANYTHING, "")))


def test_there_are_messages() -> None:
    assert len(QUOTED) >= 30


@pytest.mark.parametrize("line", QUOTED, ids=range(len(QUOTED)))
def test_a_quoted_message_is_printed_by_the_code(line: str) -> None:
    assert is_printed(line, templates())


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("a.h5: holds 3 faces, fewer than 8", True),
        ("a.h5: holds 3 dogs, fewer than 8", False),
        ("... holds ... faces, fewer than ...", True),
        ("... faces, fewer cats than ...", False),
        ("anything at all", False),
    ],
)
def test_the_comparison_itself(line: str, printed: bool) -> None:
    known = [f"{ANYTHING}: holds {ANYTHING} faces, fewer than {ANYTHING}", f"{ANYTHING}: "]
    assert is_printed(line, known) == printed

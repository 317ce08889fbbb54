"""Every message that the troubleshooting page quotes is one that the code prints."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from doc_pages import DOCS, REPOSITORY, blocks

FOLDERS = ("mlx_faceau", "convert", "torch_fallback")
LEAST_TEXT = 12  # letters of a template that stand fixed; shorter ones would fit anything
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
    return [text.removeprefix("mlx-faceau: ") for tree in trees for text in texts(tree)]


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
    wanted = [shown, shown.partition(": ")[2]]
    return any(shares_text(w, t) and can_be_equal(w, t) for w in wanted for t in known)


def shares_text(line: str, template: str) -> bool:
    """Whether enough of the template's fixed text stands in the line as it is."""
    return any(
        part[start : start + LEAST_TEXT] in line
        for part in template.split(ANYTHING)
        for start in range(len(part) - LEAST_TEXT + 1)
    )


def can_be_equal(first: str, second: str) -> bool:
    """Whether some text fits both patterns."""
    reached = [True, *(set(second[:n]) == {ANYTHING} for n in range(1, len(second) + 1))]
    for a in first:
        row = [reached[0] and a == ANYTHING]
        for n, b in enumerate(second, start=1):
            either = (a == ANYTHING or b == ANYTHING) and (reached[n] or row[-1])
            row.append(either or (reached[n - 1] and (a == b or ANYTHING in (a, b))))
        reached = row
    return reached[-1]


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

"""The command line's page holds every command and flag of the parser."""

import importlib.util
from types import ModuleType, SimpleNamespace

import pytest
from doc_pages import DOCS

from mlx_faceau.cli.main import COMMANDS


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_hook", DOCS / "scripts" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(source: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=source))


def test_the_marker_becomes_a_section_for_each_command(hook: ModuleType) -> None:
    text = hook.on_page_markdown((DOCS / "cli.md").read_text(), page=page("cli.md"), config=None)
    for command in COMMANDS:
        assert f"\n## mlx-faceau {command}\n" in text
    for command in ("train landmark-pose", "train au", "data check", "data synth"):
        assert f"\n### mlx-faceau {command}\n" in text
    assert "--min-confidence MIN_CONFIDENCE" in text
    assert hook.MARKER not in text


def test_other_pages_stay_as_they_are(hook: ModuleType) -> None:
    assert hook.on_page_markdown("text", page=page("faq.md"), config=None) == "text"


def test_lines_fit_the_page(hook: ModuleType) -> None:
    assert max(map(len, hook.reference().splitlines())) <= hook.WIDTH

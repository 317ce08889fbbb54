"""The command line's page holds every command and option of the parsers."""

import importlib.util

from doc_pages import DOCS

from mlx_faceau.cli.main import COMMANDS


def test_the_page_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("cli", DOCS / "scripts" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (DOCS / "cli.md").read_text("utf-8")
    assert text == script.page(text), "run: python docs/scripts/cli_reference.py"
    for command in COMMANDS:
        assert f"\n## mlx-faceau {command}\n" in text
    assert "`--min-confidence " in text

"""The pages build without a warning; every link, picture and file they name is there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from doc_pages import DOCS, NAMES, REPOSITORY, inline_code, prose

PLACES = ("benchmarks/", "convert/", "docs/", "mlx_faceau/", "tests/", "torch_fallback/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; a warning, such as a link that leads nowhere, fails the build."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_built_and_found_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text("utf-8")
    for page in DOCS.glob("*.md"):
        if page.stem != "index":
            assert (site / page.stem / "index.html").is_file()
            assert f'href="{page.stem}/"' in start


def test_the_site_loads_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert loaded == [], page


def test_scripts_are_no_part_of_the_site(site: Path) -> None:
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_to_files(name: str) -> None:
    page = REPOSITORY / name
    for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_repository_that_are_named_exist(name: str) -> None:
    for code in inline_code(REPOSITORY / name):
        if code.startswith(PLACES) and not re.search(r"[*<> ]", code):
            assert (REPOSITORY / code).exists(), code


def test_the_citation_is_of_this_version_and_has_what_the_format_demands() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    for picture in (DOCS / "pictures").iterdir():
        assert f"pictures/{picture.name}" in text

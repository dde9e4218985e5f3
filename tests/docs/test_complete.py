"""Nothing that a user may set, read or import is missing from the documentation, and nothing in it is out of date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lampyr
from lampyr.core.codes import CODES
from lampyr.errors import LampyrError
from lampyr.settings import SETTINGS, Setting

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: the first cell, without its backticks, → the others."""
    prose = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^#+ (.*)\n", prose, flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:3] == "| `"]
    return {first.strip("`"): rest for first, *rest in cells}


def shown(value: object) -> str:
    """A default as the pages write it."""
    if value is None or value == ():
        return "none"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.section}.{setting.name}")
def test_a_setting_is_documented_as_it_is(setting: Setting) -> None:
    default, allowed, meaning = rows("settings.md", f"[{setting.section}]")[setting.name]
    assert allowed == setting.allowed
    assert meaning
    if setting.edge is not ...:
        assert default == f"{shown(setting.default)}; edge: {shown(setting.edge)}"
    elif setting.default not in (None, ()):
        assert default == shown(setting.default)
    else:
        assert default


def test_no_setting_is_documented_that_does_not_exist() -> None:
    for section in {setting.section for setting in SETTINGS}:
        known = {setting.name for setting in SETTINGS if setting.section == section}
        assert set(rows("settings.md", f"[{section}]")) == known
    headings = re.findall(r"^## \[(.+)\]$", (DOCS / "settings.md").read_text(), re.MULTILINE)
    assert set(headings) == {setting.section for setting in SETTINGS}


def test_the_codes_are_documented_with_status_and_message() -> None:
    listed = {code: (int(cells[0]), cells[1]) for code, cells in rows("errors.md", "Errors").items()}
    assert listed == {code: (status, message) for code, (status, message) in CODES.items()}


def test_the_codes_of_the_command_line_are_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    kinds: list[type[LampyrError]] = [LampyrError, *LampyrError.__subclasses__()]
    for kind in kinds:
        assert f"`{kind.code}`" in page


@pytest.mark.parametrize("name", lampyr.__all__)
def test_a_name_to_import_is_documented(name: str) -> None:
    pages = [DOCS / page for page in ("request.md", "response.md", "streaming.md", "helpers.md")]
    spelled = re.compile(rf"(?:`|^## .*\b|lampyr\.|^from lampyr import .*\b){name}\b", re.MULTILINE)
    assert any(spelled.search(page.read_text()) for page in pages)


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    assert {page.name for page in PAGES} - {"README.md"} <= set(_LINK.findall(index))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"

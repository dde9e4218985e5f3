"""What `lampyr init` copies: projects without problems, pages that ask nobody else for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lampyr.model
from lampyr import config
from lampyr.build.scan import scan

TEMPLATES = Path(lampyr.model.__file__).parent.parent / "templates"


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("chat", {"/api/chat": ("GET", "POST")}),
        ("hello", {"/api/hello": ("GET", "POST")}),
        ("fastapi", {"/api/[[...path]]": ()}),
    ],
)
def test_a_template_is_a_project_without_problems(name: str, functions: dict[str, tuple[str, ...]]) -> None:
    project = scan(TEMPLATES / name, config.load(TEMPLATES / name))
    assert (project.errors, project.warnings) == ((), ())
    assert {one.route: one.methods for one in project.functions} == functions


def test_the_chat_route_fits_on_a_card() -> None:
    assert len((TEMPLATES / "chat/app/api/chat/route.py").read_text().splitlines()) <= 20


@pytest.mark.parametrize("page", sorted(TEMPLATES.glob("*/public/*")), ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_a_page_asks_nobody_else_and_has_no_code_in_line(page: Path) -> None:
    text = page.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.findall(r"https?:|@import|//[a-z]+\.[a-z]", text)
    if page.suffix == ".html":
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", text)

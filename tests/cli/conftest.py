"""A project for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one function, GET /api/hello."""
    folder = tmp_path / "project"
    (folder / "app/api/hello").mkdir(parents=True)
    (folder / "app/api/hello/route.py").write_text("def GET():\n    return {'hello': 'world'}\n")
    return folder

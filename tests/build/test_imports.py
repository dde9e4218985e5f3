"""Which packages a function imports, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import write

from lampyr.build.imports import packages_of


@pytest.fixture
def site(tmp_path: Path) -> str:
    files = {f"site/{name}/__init__.py": "x = 1" for name in ("alpha", "beta", "gamma", "delta")}
    write(tmp_path, {**files, "site/single.py": ""})
    return str(tmp_path / "site")


def test_what_is_imported_at_once_counts(tmp_path: Path, site: str) -> None:
    route = """
        import os, alpha.inner
        from lampyr import Response
        from lib import tools
        if os.name == "posix":
            import single
        try:
            from beta import x
        except ImportError:
            pass

        async def GET(req):
            import delta
    """
    write(tmp_path, {"app/x/route.py": route, "lib/tools.py": "from gamma import y", "lib/__init__.py": ""})
    found = packages_of(tmp_path / "app/x/route.py", [str(tmp_path)], [site])
    assert sorted(found) == ["alpha", "beta", "gamma"]
    assert set(found.values()) == {len("x = 1")}


def test_a_broken_file_imports_nothing(tmp_path: Path, site: str) -> None:
    write(tmp_path, {"route.py": "import alpha\ndef ("})
    assert packages_of(tmp_path / "route.py", [str(tmp_path)], [site]) == {}
    assert packages_of(tmp_path / "absent.py", [str(tmp_path)], [site]) == {}

"""What is installed: a wheel whose modules are compiled where that can be done, with the same sources everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
# Tests of modules that are compiled, in one process; what they replace are no compiled classes (see support/inside.py).
COMPILED = [
    "tests/core/test_events.py",
    "tests/core/test_masking.py",
    "tests/core/test_routing.py",
    "tests/gateway",
    "tests/ledger/test_journal.py",
    "tests/ledger/test_tally.py",
    "tests/node/test_instance.py",
    "tests/node/test_link.py",
    "tests/node/test_meter.py",
    "tests/runtime/test_loop.py",
]


def test_modules_to_compile_exist_and_are_named_once() -> None:
    for kind in ("modules", "linux"):
        modules = HOOK["custom"][kind]
        assert modules == sorted(set(modules)) and all((ROOT / module).is_file() for module in modules)


def test_a_pure_wheel_holds_everything(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-q", "-w", str(tmp_path)]
    done = subprocess.run([*pip, str(ROOT)], env={**os.environ, "LAMPYR_PURE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "lampyr"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(package.parent)) for path in files} <= held


def test_whole_servers_are_tested_as_they_are_installed() -> None:
    """With `./do test` that is the compiled one, unless LAMPYR_PURE or a machine without a compiler made it pure."""
    _need_built()
    asked = "import lampyr.gateway.call, lampyr.cli; print(lampyr.gateway.call.__file__); print(lampyr.cli.__file__)"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd="/").stdout.split()
    assert found[1].endswith("cli/__init__.py") and "site-packages" in found[1]
    assert found[0].endswith(".so") or not _compiler()
    asked = "import lampyr.runtime.image as image; print(image._image is not None)"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd="/").stdout.split()
    assert found == ["True"] or not _compiler() or sys.platform != "linux"


def test_compiled_modules_do_what_their_sources_do() -> None:
    """Tests of one process import what is in src; a compiled slice of bytes that ends before it begins is an error."""
    _need_built()
    pytest_ = [sys.executable, "-m", "pytest", "-o", "pythonpath=tests/support", "-p", "no:cacheprovider", *COMPILED]
    done = subprocess.run(pytest_, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _need_built() -> None:
    built = ROOT / ".venv" / "installed-built"
    if not built.exists() or "pure" in built.read_text() or "PYTHONPATH" in os.environ:
        pytest.skip("Lampyr is not built: the tests run on the working tree")


def _compiler() -> bool:
    found = subprocess.run(
        [sys.executable, "-c", "import hatch_build; print(hatch_build._can_compile())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() == "True"

"""Which folders a project's functions import from, with real virtual environments."""

from __future__ import annotations

import site as _site
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from lampyr.build.packages import packages

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    venv.create(tmp_path / ".venv", symlinks=True)
    return tmp_path


def site(root: Path) -> Path:
    return root / ".venv" / "lib" / f"python{OURS}" / "site-packages"


def test_without_a_venv_those_of_lampyr(tmp_path: Path) -> None:
    found = packages(tmp_path, {})
    assert found.paths == tuple(dict.fromkeys(OWN))
    assert found.python == sys.executable
    assert not found.warnings


def test_with_a_venv_of_the_same_version_its_own(project: Path) -> None:
    found = packages(project, {})
    assert str(site(project)) in found.paths
    assert not set(OWN) & set(found.paths)
    assert found.python == str(project / ".venv/bin/python")
    assert not found.warnings


def test_a_folder_without_pyvenv_cfg_is_no_venv(project: Path) -> None:
    (project / ".venv/pyvenv.cfg").unlink()
    assert packages(project, {}).paths == tuple(dict.fromkeys(OWN))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("home = /usr/bin\nversion = 3.8.10\n", "Python 3.8"),
        ("home = /usr/bin\nimplementation = CPython\nversion_info = 3.99.1.final.0\n", "Python 3.99"),
        ("home = /usr/bin\nimplementation = PyPy\nversion_info = 3.10.14\n", "PyPy 3.10"),
        ("", "another Python"),
    ],
)
def test_a_venv_of_another_version_is_not_used_and_said_so(tmp_path: Path, settings: str, named: str) -> None:
    (tmp_path / ".venv/lib/python3.99/site-packages").mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text(settings)
    found = packages(tmp_path, {})
    assert found.paths == tuple(dict.fromkeys(OWN))
    (warning,) = found.warnings
    assert warning.file == ".venv"
    assert named in warning.message and f"Python {OURS}" in warning.message
    assert OURS in warning.hint


def test_editable_installs_are_found_and_no_code_is_run(project: Path) -> None:
    (project / "src").mkdir()
    (project / "relative").mkdir()
    lines = ["# comment", "", f"{project}/src", "../../../../relative", "/nowhere/at/all", "import sys; sys.exit(9)"]
    (site(project) / "_editable.pth").write_text("\n".join(lines))
    assert packages(project, {}).paths[-2:] == (str(project / "src"), str(project / "relative"))


def test_python_path_comes_first(project: Path) -> None:
    found = packages(project, {"PYTHONPATH": f"{project}/one::{project}/two"})
    assert found.paths[:2] == (f"{project}/one", f"{project}/two")
    assert str(site(project)) in found.paths[2:]


def test_only_a_venv_of_the_projects_own_is_isolated(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert packages(project, {}).isolated
    assert not packages(tmp_path_factory.mktemp("other"), {}).isolated


def test_a_venv_may_want_the_systems_packages(project: Path) -> None:
    settings = project / ".venv/pyvenv.cfg"
    settings.write_text(settings.read_text().replace("packages = false", "packages = true"))
    assert {*packages(project, {}).paths} & {*_site.getsitepackages([sys.base_prefix])}

"""Where a project's functions import their packages from: the project's own .venv, or the environment of Lampyr."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lampyr.types import Problem, Project

_VENV = ".venv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """`paths` in the order of the import path; `python` is the interpreter of the environment they are in.

    `isolated`: it is the project's own, and nothing of what is installed beside Lampyr is imported.
    """

    paths: tuple[str, ...]
    python: str
    isolated: bool = False
    warnings: tuple[Problem, ...] = ()


def of(project: Project) -> Packages:
    """The packages of a project. What of its own folder is on the import path is read from the copy, if it is one."""
    return _from_copy(project, packages(project.home), project.home / _VENV)


def _from_copy(project: Project, found: Packages, venv: Path) -> Packages:
    """`found` with what lies in the project's own folder, but not in `venv`, read from the copy."""
    if project.home == project.root:
        return found
    home = f"{project.home}/"
    return replace(
        found,
        paths=tuple(
            f"{project.root}{path[len(home) - 1 :]}".rstrip("/")
            if f"{path}/".startswith(home) and not path.startswith(f"{venv}/")
            else path
            for path in found.paths
        ),
    )


def of_set(project: Project, venv: Path, source: str | None) -> Packages:
    """Those of a package set, and PYTHONPATH; `source` is where in the project its own package lies."""
    folders = _site_of(venv)
    own = [str(project.home / source)] if source is not None else []
    paths = _unique(_python_path(os.environ), [*folders, *_linked(folders)], own)
    return _from_copy(project, Packages(paths=paths, python=str(venv / "bin" / "python"), isolated=True), venv)


def _python_path(process: Mapping[str, str]) -> list[str]:
    return [os.path.abspath(entry) for entry in process.get("PYTHONPATH", "").split(os.pathsep) if entry]


def packages(root: Path, process: Mapping[str, str] | None = None) -> Packages:
    """The folders to import from: PYTHONPATH of `process` (os.environ), then those of the environment.

    That is `root`/.venv, where it is of the minor version of Python that runs Lampyr: packages with compiled parts work
    in no other. Otherwise it is Lampyr's own, with a warning if there is a .venv that could not be used.
    """
    process = os.environ if process is None else process
    python_path = _python_path(process)
    venv = Path(os.path.abspath(root / _VENV))
    settings = _settings(venv)
    if settings is None:
        return Packages(paths=_unique(python_path, _own()), python=sys.executable)
    folders = _site_of(venv)
    if folders:
        python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        paths = _unique(python_path, [*folders, *_linked(folders)], _system() if _wants_system(settings) else [])
        return Packages(paths=paths, python=str(python), isolated=True)
    return Packages(paths=_unique(python_path, _own()), python=sys.executable, warnings=(_unusable(settings),))


def _settings(venv: Path) -> dict[str, str] | None:
    """What pyvenv.cfg says (PEP 405); None where there is no virtual environment."""
    try:
        text = (venv / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _site_of(venv: Path) -> list[str]:
    """Its folders of packages for this version of Python; empty where it is of another."""
    where = {"base": str(venv), "platbase": str(venv)}
    named = [sysconfig.get_path(kind, "venv", where) for kind in ("purelib", "platlib")]
    return [folder for folder in dict.fromkeys(named) if os.path.isdir(folder)]


def _wants_system(settings: Mapping[str, str]) -> bool:
    return settings.get("include-system-site-packages", "").lower() == "true"


def _system() -> list[str]:
    """The packages of the Python that virtual environments are made from."""
    found = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    return [folder for folder in found if os.path.isdir(folder)]


def _own() -> list[str]:
    return [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]


def _linked(folders: list[str]) -> Iterator[str]:
    """Folders that .pth files add, as an editable install does. Their `import` lines run code, so they are left out."""
    for folder in folders:
        for file in sorted(Path(folder).glob("*.pth")):
            try:
                lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                if not line.strip() or line.startswith(("#", "import ", "import\t")):
                    continue
                path = os.path.abspath(os.path.join(folder, line.rstrip()))
                if os.path.exists(path):
                    yield path


def _unique(*groups: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for group in groups for path in group))


def _unusable(settings: Mapping[str, str]) -> Problem:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = settings.get("version") or settings.get("version_info") or ""
    theirs = re.match(r"\d+\.\d+", version)
    implementation = settings.get("implementation") or "Python"
    kind = (
        f"of {'Python' if implementation == 'CPython' else implementation} {theirs[0]}"
        if theirs
        else "of another Python"
    )
    return Problem(
        file=_VENV,
        line=None,
        message=f"the project's {_VENV} is {kind}, and Lampyr runs on Python {ours}: its packages are not used",
        hint=f"make it again for {ours} (uv venv --python {ours} && uv sync), or install Lampyr into it",
    )

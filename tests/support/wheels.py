"""Packages made for a test: wheels in a folder that is all the index there is, and sources that are slow to build."""

from __future__ import annotations

import tarfile
import textwrap
import zipfile
from collections.abc import Iterable
from pathlib import Path

# A build backend without any requirement of its own; it leaves word of what it was started with, and takes its time.
BACKEND = """
import os, sys, time, zipfile

def build_wheel(folder, settings=None, metadata=None):
    with open({log!r}, "a") as log:
        print(sorted(os.environ), file=log)
    time.sleep({seconds})
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("{name}.py", open("code.txt").read())
        for file, text in {records!r}.items():
            wheel.writestr("{name}-1.0.dist-info/" + file, text)
    return name
"""


def index(wheels: Path, cache: Path) -> dict[str, str]:
    """Variables with which uv knows the packages in `wheels` and no others."""
    wheels.mkdir(parents=True)
    cache.mkdir()
    settings = cache / "uv.toml"
    settings.write_text("no-index = true\n")
    return {"UV_FIND_LINKS": str(wheels), "UV_CONFIG_FILE": str(settings), "UV_CACHE_DIR": str(cache)}


def wheel(
    folder: Path, name: str, version: str, files: dict[str, str] | None = None, requires: Iterable[str] = ()
) -> Path:
    """A wheel of `name`, whose module says its version, or with `files`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for file, text in (files or {f"{name}.py": f"VERSION = {version!r}\n"}).items():
            out.writestr(file, textwrap.dedent(text))
        for file, text in _records(name, version, requires).items():
            out.writestr(f"{name}-{version}.dist-info/{file}", text)
    return path


def source(folder: Path, name: str, code: str, log: Path, seconds: float = 0.0) -> None:
    """A folder to install `name` 1.0 from; each build adds a line to `log`: the names of its variables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "code.txt").write_text(code)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    records = _records(name, "1.0", ())
    (folder / "backend.py").write_text(BACKEND.format(log=str(log), seconds=seconds, name=name, records=records))


def sdist(wheels: Path, folder: Path, log: Path) -> None:
    """What `source` has made of `oil` in `folder`, as an archive among `wheels`."""
    source(folder, "oil", "KIND = 1\n", log)
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: oil\nVersion: 1.0\n")
    with tarfile.open(wheels / "oil-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, "oil-1.0")


def _records(name: str, version: str, requires: Iterable[str]) -> dict[str, str]:
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    return {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }

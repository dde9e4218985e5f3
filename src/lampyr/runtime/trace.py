"""What an import has loaded: its files, the packages they belong to, and who imported each package first."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

_STDLIB = os.path.dirname(os.__file__) + "/"
_LAMPYR = os.path.dirname(os.path.dirname(__file__)) + "/"


class Trace:
    """Sees every import from now on, as a finder that finds nothing. For a process that imports one route file."""

    def __init__(self, root: str, file: str) -> None:
        self._root = root + "/"
        self._file = file
        self._before = frozenset(sys.modules)
        self._mapped_before = frozenset(_mapped())
        self._importers: dict[str, str] = {}
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Note who asks for a module of the top level first: its package is there because of that one."""
        if path is None and name not in self._importers:
            self._importers[name] = self._asking()

    def report(self) -> dict[str, Any]:
        """`{"files", "bytes", "packages": [{"name", "files", "bytes", "imported_by"}]}`, the largest package first.

        The standard library and Lampyr itself are not in it.
        """
        sys.meta_path.remove(self)
        sizes: dict[str, dict[str, int]] = {}
        for file, owner in {**dict(self._mapped()), **dict(self._loaded())}.items():
            sizes.setdefault(owner, {})[file] = _size(file)
        packages = [
            {"name": name, "files": len(files), "bytes": sum(files.values()), "imported_by": self._importer_of(name)}
            for name, files in sizes.items()
            if name
        ]
        return {
            "files": sum(len(files) for files in sizes.values()),
            "bytes": sum(size for files in sizes.values() for size in files.values()),
            "packages": sorted(packages, key=lambda package: (-package["bytes"], package["name"])),
        }

    def _loaded(self) -> Iterator[tuple[str, str]]:
        """Every file that is a module now, and its package; that of a project's own file is ""."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name in self._before or not isinstance(file, str) or _is_nobodys(file):
                continue
            yield file, "" if self._is_own(file) else name.partition(".")[0]

    def _mapped(self) -> Iterator[tuple[str, str]]:
        """Libraries that modules have brought with them: BLAS is 30 MB of numpy, and no module."""
        for path in _mapped() - self._mapped_before:
            # Wheels keep their libraries in a folder beside the package (auditwheel).
            yield path, path.rpartition("/site-packages/")[2].partition("/")[0].removesuffix(".libs")

    def _importer_of(self, package: str) -> str:
        return self._importers.get(package) or self._file.removeprefix(self._root)

    def _asking(self) -> str:
        """The project's file, or the package, that an import stands in; "" where that is nobody's."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            file, module = frame.f_code.co_filename, frame.f_globals.get("__name__")
            if self._is_own(file):
                return file.removeprefix(self._root)
            if file[:1] == "/" and isinstance(module, str) and not _is_nobodys(file):
                return module.partition(".")[0]
            frame = frame.f_back
        return ""

    def _is_own(self, file: str) -> bool:
        return file.startswith(self._root) and "/site-packages/" not in file


def _is_nobodys(file: str) -> bool:
    """Whether a file is the standard library's or Lampyr's: every function has those."""
    return file.startswith(_LAMPYR) or (file.startswith(_STDLIB) and "/site-packages/" not in file)


def _mapped() -> set[str]:
    """The libraries in this process that come from packages."""
    try:
        with open("/proc/self/maps") as maps:
            return {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/site-packages/" in line}
    except OSError:  # not Linux
        return set()


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # in an archive
        return 0

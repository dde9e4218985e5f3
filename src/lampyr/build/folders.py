"""The folders under app/ that hold a route file, found without following a symbolic link in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lampyr.core.segments import is_private

ROUTE_FILE = "route.py"
_DEEPEST = 64


class Found(NamedTuple):
    """A folder with a route file (`problem` ""), or one that was not looked into and why; `link` where it is a link.

    With `other`, a folder without one, and a Python file that is there instead.
    """

    parts: tuple[str, ...]
    problem: str = ""
    link: bool = False
    other: str = ""


def routes(app: Path) -> Iterator[Found]:
    """Every routable folder of `app`, in no particular order.

    Links to folders are followed, but not inside a folder that was itself reached through a link, nor to a folder that
    encloses them: so the walk ends, and stays small, whatever the links are.
    """
    waiting: list[tuple[tuple[str, ...], bool]] = [((), False)]
    while waiting:
        parts, linked = waiting.pop()
        folder = app.joinpath(*parts)
        if len(parts) > _DEEPEST:
            yield Found(parts, f"is more than {_DEEPEST} folders deep")
            continue
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            yield Found(parts, f"cannot be read: {error.strerror}")
            continue
        if any(entry.name == "pyvenv.cfg" for entry in listed):
            continue
        has_route = any(entry.name == ROUTE_FILE and not _is_folder(entry) for entry in listed)
        if has_route:
            yield Found(parts)
        for entry in listed:
            if not _is_folder(entry):
                if not has_route and entry.name.endswith(".py"):
                    yield Found(parts, other=entry.name)
            elif not is_private(entry.name) and entry.name != "node_modules":
                inner = (*parts, entry.name)
                link = entry.is_symlink()
                if link and (linked or _encloses(Path(entry.path), folder)):
                    yield Found(inner, "is a link in a circle or behind another link, and was not followed", True)
                else:
                    waiting.append((inner, linked or link))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _encloses(link: Path, folder: Path) -> bool:
    return folder.resolve().is_relative_to(link.resolve())

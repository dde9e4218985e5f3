"""The files of a log: a folder for each function, in it numbered files of which the newest is written to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

SUFFIX = ".jsonl"
# Lines about no function. Routes begin with a slash, so none is called that.
SERVER = "server"
# What a file system takes for a name is 255 bytes; a longer one ends in its own hash.
_MAX_NAME = 200


def folder_of(function: str | None) -> str:
    """The name of a function's folder."""
    if function is None:
        return SERVER
    name = quote(function, safe="[]()=@+,").replace("/", "%2F")
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def function_of(folder: str) -> str | None:
    """Whose folder has this name, as far as it says so: a long one ends with "~" and a hash."""
    return None if folder == SERVER else unquote(folder)


def folders(root: Path) -> list[str]:
    """The names of all functions' folders."""
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        return []


def numbers(folder: Path) -> list[int]:
    """The files of a function, eldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(one) for name in names if (one := name.removesuffix(SUFFIX)) != name and one.isdigit())


def file(folder: Path, number: int) -> Path:
    return folder / f"{number:09}{SUFFIX}"

"""ASGI applications in a project that has no functions: somebody comes from uvicorn, and one route file is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Only what is at the left margin: what a function makes cannot be imported.
_MADE = re.compile(rb"^(\w+)(?: *:[^=\n]+)? *= *(?:\w+\.)?(FastAPI|Starlette|Litestar|Quart)\(", re.MULTILINE)


class Application(NamedTuple):
    """A `kind` of application that is made in `line` of `file`; a route file that says `imported` exports it."""

    file: Path
    line: int
    kind: str
    imported: str


def first(files: Iterable[Path], base: Path) -> Application | None:
    """The first of `files`, which can be imported from `base`, that makes an application."""
    for file in files:
        parts = file.relative_to(base).with_suffix("").parts
        try:
            text = file.read_bytes() if file.is_file() and all(part.isidentifier() for part in parts) else b""
        except OSError:
            continue
        if made := _MADE.search(text):
            name = made[1].decode()
            module = ".".join(parts).removesuffix(".__init__")
            imported = f"from {module} import {name}{'' if name == 'app' else ' as app'}"
            return Application(file, text[: made.start()].count(b"\n") + 1, made[2].decode(), imported)
    return None

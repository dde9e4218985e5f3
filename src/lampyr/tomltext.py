"""TOML that knows its lines: tomllib says what a file holds, this says where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

# The search ends at a longer statement (a huge multi-line string): finding its end tries every length in turn.
_LONGEST_STATEMENT = 400


class TomlError(ValueError):
    """The text is not TOML: `line` (1-based) and what is wrong there."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """Read a document. Raises TomlError."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error) or "nested too deeply"
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", message)
        line = int(at[1]) if at and at[1] else text.rstrip().count("\n") + 1
        raise TomlError(message[: at.start()] if at else message, line) from None


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """The line (1-based) of a valid document where the key `path` is written, or the nearest table above it."""
    lines = _lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


@lru_cache(1)  # who names one mistake of a file names the others
def _lines(text: str) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    rows = text.split("\n")
    table: tuple[str, ...] = ()
    start = 0
    while start < len(rows):
        length, data = _statement(rows, start)
        if not length:
            break
        if rows[start].lstrip().startswith("["):
            table = max(_paths(data), key=len, default=())
            found.setdefault(table, start + 1)
        else:
            for path in _paths(data):
                found.setdefault(table + path, start + 1)
        start += length
    return found


def _statement(rows: list[str], start: int) -> tuple[int, dict[str, Any]]:
    """The shortest run of lines from `start` that parses: its length, 0 where it is too long, and what it says."""
    for length in range(1, min(_LONGEST_STATEMENT, len(rows) - start) + 1):
        try:
            return length, tomllib.loads("\n".join(rows[start : start + length]))
        except tomllib.TOMLDecodeError:
            continue
    return 0, {}


def _paths(data: Any) -> Iterator[tuple[str, ...]]:
    for inner in data if isinstance(data, list) else ():
        yield from _paths(inner)
    for key, value in data.items() if isinstance(data, dict) else ():
        yield (key,)
        for path in _paths(value):
            yield (key, *path)

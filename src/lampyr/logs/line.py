"""One line of the log: what is known of it, and how it stands in a file and in `lampyr logs --json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

# What is said of how bad it is, from the least on. What nobody says anything of is "info".
LEVELS = ("debug", "info", "warning", "error", "critical")
RANK = {level: rank for rank, level in enumerate(LEVELS)}


class Line(NamedTuple):
    """`time` is UTC, in ISO 8601 with milliseconds, so that times sort as text; secrets are masked already.

    `id` is None where no invocation is known to have written it, `function` where it is about none. `message` has more
    than one line where it is a traceback.
    """

    time: str
    id: str | None
    function: str | None
    stream: str
    level: str
    message: str

    def json(self) -> str:
        """As one line of JSON, in ASCII: no character of it can do anything to a terminal."""
        return json.dumps(self._asdict(), separators=(",", ":"))


def parse(text: bytes) -> Line | None:
    """The line that was written so; None for what is none, such as the torn end of a file."""
    try:
        found = json.loads(text)
        line = Line(*[found[name] for name in Line._fields])
    except (ValueError, KeyError, TypeError):
        return None
    return line if line.level in RANK and isinstance(line.message, str) and isinstance(line.time, str) else None


def stamp(seconds: float) -> str:
    """A time since 1970, as it stands in lines."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Stamps:
    """The same as `stamp` for times that follow one another, made from the one before."""

    __slots__ = ("_ms", "_second", "_text", "_whole")

    def __init__(self) -> None:
        self._second = self._ms = -1
        self._text = self._whole = ""

    def of(self, seconds: float) -> str:
        """The time as it stands in lines."""
        ms = int(seconds * 1000)
        if ms == self._ms:
            return self._whole
        self._ms = ms
        second, rest = divmod(ms, 1000)
        if second != self._second:
            self._second = second
            self._text = stamp(second)[:-4]
        self._whole = whole = f"{self._text}{rest:03}Z"
        return whole

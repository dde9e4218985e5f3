"""One line of the log: what is known of it, and how it stands in a file and in `lampyr logs --json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

# What is said of how bad it is, from the least on. What nobody says anything of is "info".
LEVELS = ("debug", "info", "warning", "error", "critical")
RANK = {level: rank for rank, level in enumerate(LEVELS)}
_BAD = frozenset({"error", "timeout", "crashed"})


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


class Served(NamedTuple):
    """What an access line is made of by whoever reads it: most are never read.

    `at_s` is when it ended, in seconds since some moment; `took_s` is all of it, and `after_s` (or None) how much of
    that `after()` went on.
    """

    at_s: float
    id: str
    method: str
    path: str
    status: int
    outcome: str
    cold: bool
    took_s: float
    after_s: float | None

    @property
    def level(self) -> str:
        """How bad its end is."""
        return "error" if self.status >= 500 or self.outcome in _BAD else "info"

    @property
    def message(self) -> str:
        more = " cold" if self.cold else ""
        if self.after_s is not None:
            more += f", after() {self.after_s * 1000:.1f} ms"
        ended = "" if self.outcome == "ok" else f" {self.outcome}"
        took_ms = (self.took_s - (self.after_s or 0.0)) * 1000
        return f"{self.method} {self.path} {self.status or '-'}{ended} {took_ms:.1f} ms{more}"


def parse(text: bytes) -> list[Line]:
    """The lines that were written so; none for what is none, such as the torn end of a file.

    Access lines of one function that follow one another are one object: `served` has what a `Served` has of each, and
    `since` is the moment that their times count from.
    """
    try:
        found = json.loads(text)
        if "served" in found:
            since_s, function = found["since"], found["function"]
            rows = map(Served._make, found["served"])
            return [Line(stamp(since_s + row.at_s), row.id, function, "access", row.level, row.message) for row in rows]
        line = Line(*[found[name] for name in Line._fields])
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return []
    return [line] if line.level in RANK and isinstance(line.message, str) and isinstance(line.time, str) else []


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

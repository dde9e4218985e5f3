"""One line of the log: what is known of it, and how it stands in a file and in `lampyr logs --json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

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

    Times are in microseconds: `at_us` is when it ended, since some moment; `took_us` is all of it, and `after_us` (or
    None) how much of that `after()` went on.
    """

    at_us: int
    id: str
    method: str
    path: str
    status: int
    outcome: str
    cold: bool
    took_us: int
    after_us: int | None

    @property
    def level(self) -> str:
        """How bad its end is."""
        return "error" if self.status >= 500 or self.outcome in _BAD else "info"

    @property
    def message(self) -> str:
        more = " cold" if self.cold else ""
        if self.after_us is not None:
            more += f", after() {self.after_us / 1000:.1f} ms"
        ended = "" if self.outcome == "ok" else f" {self.outcome}"
        took_ms = (self.took_us - (self.after_us or 0)) / 1000
        return f"{self.method} {self.path} {self.status or '-'}{ended} {took_ms:.1f} ms{more}"


def parse(text: bytes) -> list[Line]:
    """The lines that were written so; none for what is none, such as the torn end of a file.

    Access lines of one function that follow one another are one object: `served` has what a `Served` has of each, and
    `since_us` is the moment that their times count from. An earlier Lampyr kept seconds, with `since`.
    """
    try:
        found = json.loads(text)
        if "served" in found:
            if "since" in found:
                since_us, rows = int(found["since"] * 1e6), map(_in_us, found["served"])
            else:
                since_us, rows = found["since_us"], map(Served._make, found["served"])
            function = found["function"]
            return [
                Line(stamp((since_us + row.at_us) / 1e6), row.id, function, "access", row.level, row.message)
                for row in rows
            ]
        line = Line(*[found[name] for name in Line._fields])
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return []
    texts = (line.time, line.id or "", line.message)
    return [line] if line.level in RANK and all(isinstance(one, str) for one in texts) else []


def _in_us(served: Sequence[Any]) -> Served:
    """A row of an earlier Lampyr, which kept seconds."""
    at_s, *facts, took_s, after_s = served
    after_us = None if after_s is None else int(after_s * 1e6)
    return Served._make([int(at_s * 1e6), *facts, int(took_s * 1e6), after_us])


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

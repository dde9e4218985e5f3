"""Reads a log, by any number of processes at any time: what is kept of it, its end, and what comes.

    query = Query(function="/api/chat", level="warning")
    for line in read(state_dir / "logs", query): ...           # all that is kept, in the order of time
    for line in last(state_dir / "logs", query, 100): ...      # the latest hundred
    follower = Follower(state_dir / "logs", query)             # what is written from now on...
    follower.poll()                                            # ...since the poll before: ask a few times a second

It reads files and nothing else: a server need not run, may start later, and may be killed meanwhile.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path

from lampyr.logs import files
from lampyr.logs.line import RANK, Line, parse, stamp

BLOCK_BYTES = 64 * 1024
# A clock that was set back, and lines that waited for their disk: files are passed over only beyond this.
SLACK_S = 60.0
_time = attrgetter("time")


@dataclass(frozen=True, slots=True)
class Query:
    """Which lines are wanted. `level` is the least one; `since` as in `Line.time` (see line.stamp).

    `id` is that of an invocation, or how it begins.
    """

    id: str | None = None
    function: str | None = None
    level: str = "debug"
    since: str = ""
    contains: str = ""

    def wants(self, line: Line) -> bool:
        return (
            (self.id is None or (line.id or "").startswith(self.id))
            and (self.function is None or line.function == self.function)
            and RANK[line.level] >= RANK[self.level]
            and line.time >= self.since
            and self.contains in line.message
        )

    def folders(self, root: Path) -> list[Path]:
        """Where such lines may be."""
        names = files.folders(root) if self.function is None else [files.folder_of(self.function)]
        return [root / name for name in names]

    def lines(self, texts: Iterable[bytes], *, back: bool = False) -> Iterator[Line]:
        """The wanted ones among lines of a file, which come from its end where `back` says so."""
        sought = self.id.encode() if self.id is not None else b""
        # Bytes are looked for before a line is parsed, which takes ten times as long. What is in a message is escaped.
        least = RANK[self.level]
        levels = [b'"level":"%s"' % level.encode() for level, rank in RANK.items() if least and rank >= least]
        levels += [b'"served":'] if levels else []  # access lines, many in one object
        for text in texts:
            if sought not in text or (levels and not any(level in text for level in levels)):
                continue
            lines = parse(text)
            yield from filter(self.wants, reversed(lines) if back else lines)

    def is_older(self, file: Path) -> bool:
        """Whether nothing wanted can be in a file, because it was last written to too long ago."""
        begun = max(self.since, _born(self.id))
        try:
            return bool(begun) and stamp(file.stat().st_mtime + SLACK_S) < begun
        except FileNotFoundError:
            return True


def _born(id: str | None) -> str:
    """When an invocation arrived, or the first whose id begins so: ids begin with that (gateway/ids.py)."""
    try:
        return stamp(int(id[:11].ljust(11, "0"), 16) / 1000) if id else ""
    except (ValueError, OverflowError, OSError):
        return ""


def functions(root: Path) -> list[str]:
    """The functions that have lines."""
    return sorted({name for folder in files.folders(root) if (name := files.function_of(folder)) is not None})


def ids(root: Path, query: Query) -> set[str]:
    """Of which invocations the wanted lines are."""
    return {line.id for line in read(root, query) if line.id is not None}


def read(root: Path, query: Query) -> Iterator[Line]:
    """All wanted lines that are kept, in the order of time."""
    return heapq.merge(*(_onwards(folder, query) for folder in query.folders(root)), key=_time)


def last(root: Path, query: Query, count: int) -> list[Line]:
    """The latest `count` wanted lines, in the order of time."""
    return _latest([_back(folder, query) for folder in query.folders(root)], count)


def has_forgotten(root: Path, query: Query) -> bool:
    """Whether lines before those that are kept were let go, because there were too many or they were too old."""
    return any(numbers[:1] > [1] for folder in query.folders(root) if (numbers := files.numbers(folder)))


def _latest(backwards: list[Iterator[Line]], count: int) -> list[Line]:
    newest = heapq.merge(*backwards, key=_time, reverse=True)
    return list(islice(newest, count))[::-1]


def _onwards(folder: Path, query: Query) -> Iterator[Line]:
    for number in files.numbers(folder):
        file = files.file(folder, number)
        if not query.is_older(file):
            yield from query.lines(_texts(file))


def _back(folder: Path, query: Query, newest: int | None = None, end: int | None = None) -> Iterator[Line]:
    """From the newest line (or that before `end` of the file `newest`) to the eldest."""
    for number in reversed(files.numbers(folder)):
        file = files.file(folder, number)
        if newest is not None and number > newest:
            continue
        if query.is_older(file):
            return
        yield from query.lines(_texts_back(file, end if number == newest else None), back=True)


class Follower:
    """The wanted lines that are written after it was made, across new files and new servers."""

    def __init__(self, root: Path, query: Query) -> None:
        self._root = root
        self._query = query
        self._trails = {folder: _Trail(folder, from_end=True) for folder in query.folders(root)}

    def latest(self, count: int) -> list[Line]:
        """The latest `count` wanted lines from before, in the order of time; to be asked first, if at all."""
        return _latest([trail.before(self._query) for trail in self._trails.values()], count)

    def poll(self) -> list[Line]:
        """What was written since it was asked before, in the order of time."""
        found: list[Line] = []
        for folder in self._query.folders(self._root):
            if folder not in self._trails:
                self._trails[folder] = _Trail(folder)
            found += self._query.lines(self._trails[folder].texts())
        found.sort(key=_time)
        return found


class _Trail:
    """How far one function's files have been read."""

    def __init__(self, folder: Path, *, from_end: bool = False) -> None:
        self._folder = folder
        self._number, self._offset = 1, 0
        if from_end and (numbers := files.numbers(folder)):
            self._number = numbers[-1]
            self._offset = _end_of(files.file(folder, self._number))

    def before(self, query: Query) -> Iterator[Line]:
        """The wanted lines up to here, from the newest on."""
        return _back(self._folder, query, self._number, self._offset)

    def texts(self) -> Iterator[bytes]:
        """The whole lines that have come."""
        while True:
            # Looked for before the file is read to its end: when there is another one, nothing more comes in this one.
            following = self._following()
            yield from self._rest()
            if following is None:
                return
            self._number, self._offset = following, 0

    def _following(self) -> int | None:
        """The file after the one that is read."""
        if files.file(self._folder, self._number + 1).exists():
            return self._number + 1
        if files.file(self._folder, self._number).exists():
            return None
        numbers = files.numbers(self._folder)
        return numbers[0] if numbers and numbers[0] != self._number else None

    def _rest(self) -> Iterator[bytes]:
        file = files.file(self._folder, self._number)
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            return
        if size < self._offset:  # somebody has emptied it
            self._offset = 0
        if size == self._offset:
            return
        for text in _texts(file, self._offset):
            if not text.endswith(b"\n"):
                return  # it is still being written, or never will be
            self._offset += len(text)
            yield text


def _texts(file: Path, offset: int = 0) -> Iterator[bytes]:
    try:
        with open(file, "rb") as content:
            content.seek(offset)
            yield from content
    except FileNotFoundError:  # it has just been let go
        return


def _texts_back(file: Path, end: int | None = None) -> Iterator[bytes]:
    """From the last line (or that before `end`) to the first."""
    try:
        content = open(file, "rb")  # noqa: SIM115  closed below; this alone may fail
    except FileNotFoundError:
        return
    with content:
        at = content.seek(0, os.SEEK_END) if end is None else end
        rest = b""
        while at > 0:
            size = min(BLOCK_BYTES, at)
            at -= size
            content.seek(at)
            first, *others = (content.read(size) + rest).split(b"\n")
            yield from reversed(others)
            rest = first
        yield rest


def _end_of(file: Path) -> int:
    """Where the next line of a file begins: behind its last line break."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return 0
    return size - len(next(_texts_back(file, size), b""))

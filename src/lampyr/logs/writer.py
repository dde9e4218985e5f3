"""The writing end of a log: lines are collected, and a thread beside the loop writes them, many at a time.

A disk that is slow, full or gone costs lines, each time with a mark, and never a request. A function that says more
than is kept loses its own lines only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from lampyr.logs import files
from lampyr.logs.line import Line, stamp
from lampyr.logs.roll import Roll, forget_before

# Of one function, while the disk is slow.
MAX_WAITING_BYTES = 1024 * 1024
FORGET_EVERY_S = 3600.0
_WAIT_AT_END_S = 2.0

# Of each function the text, in pieces, and how many lines that is.
Batch = dict[str | None, tuple[list[bytes], int]]


class Writer:
    """One process has it. `told` is called, from a thread, when something cannot be written: once for many lines."""

    def __init__(self, folder: Path, keep_bytes: int, keep_days: int, told: Callable[[str], None]) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._keep_s = keep_days * 86_400.0
        self._told = told
        self._waiting: Batch = {}
        self._bytes: dict[str | None, int] = {}
        self._dropped: dict[str | None, int] = {}
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._busy = False
        self._rolls: dict[str | None, Roll] = {}
        self._unwritten: dict[str | None, int] = {}  # lines that the disk did not take; the thread's
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def add(self, function: str | None, texts: list[bytes], count: int) -> None:
        """Keep what stands for so many lines (see line.parse, each with a line break), at the next `flush`."""
        size = self._bytes.get(function, 0) + sum(map(len, texts))
        if size > MAX_WAITING_BYTES:
            self._dropped[function] = self._dropped.get(function, 0) + count
            return
        self._bytes[function] = size
        waiting, before = self._waiting.get(function, ([], 0))
        waiting += texts
        self._waiting[function] = waiting, before + count

    def flush(self) -> bool:
        """Have the thread write what has been added; False while it still writes what was added before."""
        if self._busy:
            return False
        for function, count in self._dropped.items():
            waiting, before = self._waiting.get(function, ([], 0))
            waiting.append(mark(function, count, "the disk is too slow"))
            self._waiting[function] = waiting, before + 1
        if self._waiting:
            self._busy = True
            self._batches.put(self._waiting)
            self._waiting, self._bytes, self._dropped = {}, {}, {}
        return True

    def close(self) -> None:
        """Write what can still be written, for a moment."""
        deadline = time.monotonic() + _WAIT_AT_END_S
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(0.001)
        self._batches.put(None)
        self._thread.join(max(deadline - time.monotonic(), 0.0))

    # --- on the thread

    def _run(self) -> None:
        forgotten_s = 0.0
        while (batch := self._batches.get()) is not None:
            for function, (texts, count) in batch.items():
                self._write(function, texts, count)
            self._busy = False
            now_s = time.time()
            if now_s - forgotten_s > FORGET_EVERY_S:
                forgotten_s = now_s
                self._forget(now_s - self._keep_s)

    def _write(self, function: str | None, texts: list[bytes], count: int) -> None:
        roll = self._rolls.get(function)
        if roll is None:
            roll = self._rolls[function] = Roll(self._folder / files.folder_of(function), self._keep_bytes)
        lost = self._unwritten.get(function)
        first = mark(function, lost, "they could not be written to the disk") if lost else b""
        try:
            roll.write(first + b"".join(texts))
        except OSError as error:
            self._unwritten[function] = self._unwritten.get(function, 0) + count
            if not self._complained:
                self._complained = True
                self._told(f"error: the log cannot be written: {error}\nhint: free some space on its disk")
            return
        if lost:
            del self._unwritten[function]
            if not self._unwritten:
                self._complained = False

    def _forget(self, before_s: float) -> None:
        try:
            forget_before(self._folder, before_s)
        except OSError as error:
            self._told(f"warning: old lines of the log cannot be removed: {error}")


def mark(function: str | None, count: int, why: str) -> bytes:
    """The line in place of lines that are not there."""
    text = f"{count} line{'s are' if count > 1 else ' is'} missing here: {why}"
    return Line(stamp(time.time()), None, function, "platform", "warning", text).json().encode() + b"\n"

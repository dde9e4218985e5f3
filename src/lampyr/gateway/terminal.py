"""A stream for people, mostly stderr: text is collected and written a few times a second, and holds up nobody."""

from __future__ import annotations

import os
import select

# POSIX promises that a pipe which polls writable takes this much without blocking (pipe(7), PIPE_BUF).
WRITE_BYTES = 4096
# A reader that does not read (a paused terminal, a full pipe) costs lines, not requests.
MAX_WAITING_LINES = 10_000
MAX_WAITING_BYTES = 4 * 1024 * 1024


class Terminal:
    """`lines` takes lines, `write` writes what can be written now without waiting."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._lines: list[str] = []
        self._waiting = 0
        self._rest = b""
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def lines(self, lines: list[str]) -> None:
        if len(self._lines) >= MAX_WAITING_LINES or self._waiting > MAX_WAITING_BYTES:
            self._dropped += len(lines)
            return
        self._lines += lines
        self._waiting += sum(map(len, lines))

    def write(self) -> bool:
        """False while some is left."""
        if self._lines and len(self._rest) < MAX_WAITING_BYTES:
            text = "\n".join(self._lines)
            self._lines.clear()
            self._waiting = 0
            if self._dropped:
                text += f"\nlampyr: {self._dropped} log lines were dropped because nobody read them"
                self._dropped = 0
            self._rest += text.encode(errors="replace") + b"\n"
        rest, at = memoryview(self._rest), 0
        while at < len(rest) and self._poll.poll(0):
            try:
                at += os.write(self._fd, rest[at : at + WRITE_BYTES])
            except BlockingIOError:
                break
            except OSError:  # nobody will ever read it
                at = len(rest)
        self._rest = bytes(rest[at:])
        return not (self._rest or self._lines)

"""The pipe behind an untrusted process's stdout or stderr: read without waiting, cut into lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic

from lampyr.core.flow import Patience

READ_BYTES = 8 * 1024
# A longer line is passed on in parts, so that a function which never ends its line cannot grow the gateway.
MAX_LINE_BYTES = 16 * 1024

# Takes a line, or a part of one; with True the line has ended.
Sink = Callable[[bytes, bool], None]


class LogPipe:
    """The reading end; `writer` is the descriptor to hand to the process and to close here afterwards.

    A process that says more than there is patience for waits in `write`: a full pipe costs only its function.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink, patience: Patience) -> None:
        self._loop = loop
        self._sink = sink
        self._patience = patience
        self._tail = b""
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self.heard = False  # something has come since somebody last wanted to know
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(self._reader, self.read)

    def give_to(self, user: int) -> None:
        """Let a process with this user id open it by a name too (/dev/stdout). Only root can, and only root has to."""
        if os.geteuid() == 0:
            os.fchown(self.writer, user, user)

    def handed_over(self) -> None:
        """The process has its copy of the writing end."""
        os.close(self.writer)
        self.writer = -1

    def read(self) -> bool:
        """Pass on the lines that have arrived; False when there is nothing to read now."""
        if self._reader < 0:  # the process has closed its end
            return False
        began_s = monotonic()
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self.heard = True
        *lines, tail = (self._tail + data).split(b"\n")
        for line in lines:
            self._sink(line, True)
        while len(tail) > MAX_LINE_BYTES:
            self._sink(tail[:MAX_LINE_BYTES], False)
            tail = tail[MAX_LINE_BYTES:]
        self._tail = tail
        pause_s = self._patience.pause_s(began_s, monotonic())
        if pause_s and self._pause is None:
            self._loop.remove_reader(self._reader)
            self._pause = self._loop.call_later(pause_s, self._go_on)
        return True

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._reader, self.read)

    def close(self) -> None:
        """Stop reading. A child that the process left behind may hold the pipe; nobody listens to it any more."""
        if self._reader < 0:
            return
        self._loop.remove_reader(self._reader)
        if self._pause is not None:
            self._pause.cancel()
        os.close(self._reader)
        self._reader = -1
        if self.writer >= 0:
            self.handed_over()
        if self._tail:
            self._sink(self._tail, True)
            self._tail = b""

    def drain(self) -> None:
        """Pass on what is in the pipe now, which is 64 KiB at most, whether there is patience for that or not."""
        for _ in range(9):
            if not self.read():
                break

    def finish(self) -> None:
        """The process has ended: pass on what is left in the pipe, then close."""
        self.drain()
        self.close()


def stdout_and_stderr(
    loop: asyncio.AbstractEventLoop, sink: Callable[[str], Sink], user: int, patience: Patience
) -> list[LogPipe]:
    """The two pipes of a process with this user id. Raises OSError."""
    pipes: list[LogPipe] = []
    try:
        for stream in ("stdout", "stderr"):
            pipes.append(LogPipe(loop, sink(stream), patience))
            pipes[-1].give_to(user)
    except OSError:
        for pipe in pipes:
            pipe.close()
        raise
    return pipes

"""The server's log on stderr: access lines, what functions print, failures. It never holds up a request."""

from __future__ import annotations

import asyncio
import os
import select
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.core import endings

if TYPE_CHECKING:
    from lampyr.gateway.call import Call
    from lampyr.gateway.exchange import Exchange
    from lampyr.gateway.masking import Masker

# POSIX promises that a pipe which polls writable takes this much without blocking (pipe(7), PIPE_BUF).
WRITE_BYTES = 4096
FLUSH_AFTER_S = 0.02
# A reader that does not read (a paused terminal, a full pipe) costs lines, not requests.
MAX_WAITING_LINES = 10_000
MAX_WAITING_BYTES = 4 * 1024 * 1024

# C0 and C1 controls but tab could move the cursor or retitle the terminal of whoever reads the log.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}


class Log:
    """Collects lines and writes them a few times a second; `masker` takes the secrets out first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int = 2) -> None:
        self._loop = loop
        self._fd = fd
        self._lines: list[str] = []
        self._waiting = 0
        self._rest = b""
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def line(self, text: str) -> None:
        if len(self._lines) >= MAX_WAITING_LINES or self._waiting > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._lines.append(text)
        self._waiting += len(text)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def platform(self, text: str) -> None:
        """A line of the platform's own."""
        self.line(f"lampyr: {text}")

    def output(self, route: str, id: str | None, line: bytes, masker: Masker) -> None:
        """A line that a function wrote to stdout or stderr."""
        if masker:
            line = masker.mask(line)
        text = line.decode(errors="replace").translate(_CONTROLS)
        self.line(f"{route} | {text}" if id is None else f"{route} {id} | {text}")

    def access(self, call: Call) -> None:
        """One line per invocation: what, how it ended, how long it took, and how long `after` went on."""
        ended = "" if call.outcome == "ok" else f" {call.outcome}"
        after_s = call.after_s
        more = (" cold" if call.cold else "") + (f", after() {after_s * 1000:.1f} ms" if after_s is not None else "")
        self._access(call.exchange, f"{call.status or '-'}{ended}", more, after_s or 0.0)

    def refused(self, exchange: Exchange, status: int) -> None:
        """One line per error that no function had a part in: the client got an id, and looks for it here."""
        self._access(exchange, str(status), "")

    def turned_away(self, method: str, path: str, status: int, started: float, id: str) -> None:
        """One line per request that the front door has refused, by what could be read of it."""
        self.line(f"{method} {path} {status} {(monotonic() - started) * 1000:.1f} ms {id}")

    def _access(self, exchange: Exchange, ended: str, more: str, after_s: float = 0.0) -> None:
        took_ms = (monotonic() - exchange.started - after_s) * 1000
        path = exchange.target.partition("?")[0]  # printable: the front door refuses anything else
        self.line(f"{exchange.method} {path} {ended} {took_ms:.1f} ms{more} {exchange.id}")

    def failure(self, call: Call, text: str) -> None:
        """A handler's traceback, line by line under the invocation's id."""
        for line in text.rstrip("\n").split("\n"):
            self.output(call.pool.function.route, call.id, line.encode(errors="replace"), call.masker)

    def ended(self, call: Call, why: str) -> None:
        """The process of a call was ended for a reason of ours."""
        self.platform(f"{call.pool.function.route} {call.id}: the process ended: {why}")

    def crash(self, call: Call, status: int | None) -> None:
        """The process of a call has ended by itself, with this exit status where that is known."""
        how = "ended" if status is None else endings.told(status)
        self.platform(f"{call.pool.function.route} {call.id}: the process {how}")
        if status is not None:
            self.line(f"hint: {endings.hint(status)}")

    def _flush(self) -> None:
        self._timer = None
        if self._lines and len(self._rest) < MAX_WAITING_BYTES:
            text = "\n".join(self._lines)
            self._lines.clear()
            self._waiting = 0
            if self._dropped:
                text += f"\nlampyr: {self._dropped} log lines were dropped because nobody read them"
                self._dropped = 0
            self._rest += text.encode(errors="replace") + b"\n"
        self._write()
        if self._rest:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def _write(self) -> None:
        rest, at = memoryview(self._rest), 0
        while at < len(rest) and self._poll.poll(0):
            try:
                at += os.write(self._fd, rest[at : at + WRITE_BYTES])
            except BlockingIOError:
                break
            except OSError:  # nobody will ever read it
                at = len(rest)
        self._rest = bytes(rest[at:])

    def close(self) -> None:
        """Write what can still be written."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

"""A line for each call to a provider: on stderr, and by way of control to whoever keeps the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lampyr.core.printable import printable
from lampyr.gateway.terminal import Terminal

FLUSH_AFTER_S = 0.02


class Log:
    """`keep(route, text)` sends a line on; `route` is "" where nobody knows whose call it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keep: Callable[[str, str], None]) -> None:
        self._loop = loop
        self._keep = keep
        self._terminal = Terminal()
        self._timer: asyncio.TimerHandle | None = None

    def call(self, route: str, text: str) -> None:
        """What became of a call; secrets are masked already."""
        self._say(route, text, f"broker | {route or '-'} {text}")

    def platform(self, text: str) -> None:
        """A line of the platform's own."""
        self._say("", text, f"lampyr: {text}")

    def _say(self, route: str, text: str, shown: str) -> None:
        self._terminal.lines([printable(line) for line in shown.split("\n")])
        self._keep(route, text)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._terminal.write():
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

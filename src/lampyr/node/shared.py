"""A shared snapshot as the gateway sees it: packages that several functions use, imported once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from lampyr.core.sharing import can_serve
from lampyr.node.forks import Ended, Forked
from lampyr.node.limits import Fence
from lampyr.node.logs import Sink
from lampyr.node.offspring import Offspring
from lampyr.runtime.channel import Message

if TYPE_CHECKING:
    from lampyr.node.snapshots import Base

# Snapshots of functions that have been forked and not yet moved into groups of their own.
MOST_BEGINNING = 64


class Shared:
    """Forks function snapshots like the base, whose place it takes for its functions: absent until one is needed.

    `failed` is final: what cannot be shared (it does not import, or asks for variables that only functions have) every
    function imports by itself, from the base.
    """

    def __init__(
        self,
        base: Base,
        key: str,
        spec: Message,
        env: dict[str, str],
        private: frozenset[str],
        sink: Callable[[str], Sink],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = base.loop
        self.state: Literal["absent", "importing", "ready", "failed"] = "absent"
        self.users = 0  # function snapshots that may come to it
        self._base = base
        self._key = key
        self._spec = spec
        self._env = env
        self._private = private
        self._sink = sink
        self._fence = Fence(base.limits, None, str(spec["user"]), spec["memory_mib"], MOST_BEGINNING)
        self._process: Offspring | None = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def alive(self) -> bool:
        return self._base.alive if self.state == "failed" else self.state == "ready"

    def fork(self, message: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool:
        """As Base.fork; False too where the packages are yet to be imported."""
        if self.state == "failed":
            return self._base.fork(message, fds, forked, ended)
        return self._process is not None and self.state == "ready" and self._process.fork(message, fds, forked, ended)

    def when_connected(self, start: Callable[[], None]) -> None:
        """As Base.when_connected. Raises OSError where the system has nothing left for its process."""
        if self.state == "failed":
            self._base.when_connected(start)
            return
        if self.state == "absent":
            self._import()
        self._waiting.append(start)

    def _import(self) -> None:
        self._process = Offspring(
            self.loop,
            self._base,
            self._spec,
            self._env,
            self._fence,
            self._sink,
            told=self._told,
            lost=self._gone,
            overdue=lambda: self._settle("failed"),
        )
        self.state = "importing"
        if not self._process.ordered:
            self._import_later()

    def _import_later(self) -> None:
        self._drop("absent")
        self._base.when_connected(self._import_again)

    def _import_again(self) -> None:
        try:
            self._import()
        except OSError:  # who waits for it cannot be imported either, and says so
            self._settle("absent")

    def _told(self, message: Message) -> None:
        if self.state != "importing":
            return  # its packages run in it, and may say what they like
        if "ready" in message or "failed" in message:
            self._settle("ready" if can_serve(message, self._private) else "failed")

    def _gone(self) -> None:
        if self._process is not None and self._process.lacked:
            self._settle("absent")
        elif self._process is not None and self._process.pidfd < 0 and not self._base.alive:
            self._import_later()
        else:
            # Once it was ready it may come back, as the base may; what dies at its import is not tried again.
            self._settle("absent" if self.state == "ready" else "failed")

    def _settle(self, state: Literal["absent", "ready", "failed"]) -> None:
        if state == "ready" and self._process is not None:
            self.state = state
            self._process.settled()
            self._fence.imported()
        elif state != "ready":
            self._drop(state)
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            start()

    def _drop(self, state: Literal["absent", "failed"]) -> None:
        self.state = state
        if self._process is not None:
            self._process.close()
            self._process = None

    def release(self) -> None:
        """One of the functions is gone; with the last of them the process goes."""
        self.users -= 1
        if not self.users:
            self._base.forget(self._key)
            self._drop("absent")

"""A shared snapshot as the gateway sees it: packages that several functions use, imported once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from lampyr.core.flow import Patience
from lampyr.core.sharing import can_serve
from lampyr.node.forks import Forked, Forks
from lampyr.node.logs import LogPipe, Sink, stdout_and_stderr
from lampyr.node.processes import end
from lampyr.runtime.channel import Channel, Message

if TYPE_CHECKING:
    from lampyr.node.limits import Limits
    from lampyr.node.snapshots import Base

# An import that takes longer hangs; a person waiting would have given up as well.
IMPORT_TIMEOUT_S = 60.0


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
        self.limits: Limits = base.limits
        self.state: Literal["absent", "importing", "ready", "failed"] = "absent"
        self.users = 0  # function snapshots that may come to it
        self._base = base
        self._key = key
        self._spec = spec
        self._env = env
        self._private = private
        self._sink = sink
        self._forks: Forks | None = None
        self._pidfd = -1
        self._pipes: list[LogPipe] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def alive(self) -> bool:
        return self._base.alive if self.state == "failed" else self.state == "ready"

    def fork(self, message: Message, fds: tuple[int, ...], forked: Forked) -> bool:
        """As Base.fork; False too where the packages are yet to be imported."""
        if self.state == "failed":
            return self._base.fork(message, fds, forked)
        if self.state == "ready" and self._forks is not None:
            return self._forks.order(message, fds, forked)
        return False

    def when_connected(self, start: Callable[[], None]) -> None:
        if self.state == "failed":
            self._base.when_connected(start)
            return
        self._waiting.append(start)
        if self.state == "absent":
            self._import()

    def _import(self) -> None:
        self.state = "importing"
        ours, theirs = Channel.pair()
        self._pipes = stdout_and_stderr(self.loop, self._sink, self._spec["user"], Patience())
        sent = self._base.fork(self._spec, (theirs.fileno(), *(pipe.writer for pipe in self._pipes)), self._forked)
        theirs.close()
        for pipe in self._pipes:
            pipe.handed_over()
        if not sent:
            ours.close()
            self._drop("absent")
            self._base.when_connected(self._import)
            return
        self._forks = Forks(self.loop, ours, self._told, self._gone)
        self._forks.say({"env": self._env})
        self._timer = self.loop.call_later(IMPORT_TIMEOUT_S, self._settle, "failed")

    def _forked(self, pid: int, pidfd: int) -> None:
        self._pidfd = pidfd
        if self._forks is None or pidfd < 0:
            self._settle("failed")

    def _told(self, message: Message) -> None:
        if self.state != "importing":
            return  # its packages run in it, and may say what they like
        if "ready" in message or "failed" in message:
            self._settle("ready" if can_serve(message, self._private) else "failed")

    def _gone(self) -> None:
        # Once it was ready it may come back, as the base may; what dies at its import is not tried again.
        self._settle("absent" if self.state == "ready" else "failed")

    def _settle(self, state: Literal["absent", "ready", "failed"]) -> None:
        if state == "ready":
            self.state = state
            self._stop_timer()
        else:
            self._drop(state)
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self, state: Literal["absent", "failed"]) -> None:
        self.state = state
        self._stop_timer()
        if self._forks is not None:
            self._forks.close()
            self._forks = None
        if self._pidfd >= 0:
            end(self._pidfd)
            self._pidfd = -1
        for pipe in self._pipes:
            pipe.finish()
        self._pipes = []

    def release(self) -> None:
        """One of the functions is gone; with the last of them the process goes."""
        self.users -= 1
        if not self.users:
            self._base.forget(self._key)
            self._drop("absent")

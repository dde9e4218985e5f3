"""A process that another one forks for us and that forks in its turn: its channel, its limits, its log, its end.

The base's are the snapshots of functions and of packages that several share; these have snapshots of functions too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from lampyr.core.flow import Patience
from lampyr.node.exit import Exit
from lampyr.node.forks import Ended, Forked, Forks
from lampyr.node.limits import Fence
from lampyr.node.logs import Sink, stdout_and_stderr
from lampyr.node.processes import end, is_over, own_bytes, pid_of
from lampyr.runtime.channel import Channel, Message

# An import that takes longer hangs; a person waiting would have given up as well.
IMPORT_TIMEOUT_S = 60.0


class Parent(Protocol):
    """Who forks. `fork` is False where it cannot now; whoever is told `when_connected` may ask again."""

    @property
    def alive(self) -> bool: ...
    def fork(self, message: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool: ...
    def when_connected(self, start: Callable[[], None]) -> None: ...


class Offspring:
    """`told` gets what it says; `lost` is called once when it is gone, or could not be made; `overdue` while nothing
    has `settled` its import in time. It gets `env` once its limits hold, and imports nothing before. Raises OSError
    where the server has no descriptors for it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parent: Parent,
        spec: Message,
        env: Mapping[str, str],
        fence: Fence,
        sink: Callable[[str], Sink],
        *,
        told: Callable[[Message], None],
        lost: Callable[[], None],
        overdue: Callable[[], None],
        hatch: Callable[[int], bool] | None = None,
    ) -> None:
        self.exit = Exit(loop)
        self._env = env
        self._fence = fence
        self._lost = lost
        self._pidfd = -1
        self.lacked = ""  # what the system had nothing left of for it
        self._pipes = stdout_and_stderr(loop, sink, spec["user"], Patience())
        try:
            ours, theirs = Channel.pair()
        except OSError:
            for pipe in self._pipes:
                pipe.close()
            raise
        self._forks = Forks(loop, ours, told, lost, hatch)
        self._timer = loop.call_later(IMPORT_TIMEOUT_S, overdue)
        fds = (theirs.fileno(), *(pipe.writer for pipe in self._pipes))
        try:
            self.ordered = parent.fork(spec, fds, self._forked, self.exit.said)
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
        for pipe in self._pipes:
            pipe.handed_over()

    def _forked(self, pidfd: int, lacked: str) -> None:
        if pidfd < 0:
            self._unforked(lacked)
        elif not self._forks.alive:  # it was closed meanwhile
            end(pidfd)
        elif (pid := pid_of(pidfd)) <= 0 and not is_over(pidfd):
            end(pidfd)
            self._unforked("the server has no descriptor for it")
        else:
            self._pidfd = pidfd
            self._forks.forker = pid
            self._fence.admit_snapshot(pidfd, self._say_env)

    def _unforked(self, lacked: str) -> None:
        self.lacked = lacked
        self.exit.said(None)
        if self._forks.alive:  # or its end of the channel, lost on the way, has told of it
            self._lost()

    def _say_env(self) -> None:
        """Over its own channel: its parent, and so the other children of that, never see it."""
        self._forks.say({"env": self._env})

    @property
    def pidfd(self) -> int:
        """-1 until it has been forked."""
        return self._pidfd

    @property
    def own_bytes(self) -> int:
        """Memory that it shares with no other process."""
        return own_bytes(self._pidfd)

    def settled(self) -> None:
        """Its import is over."""
        self._timer.cancel()

    def fork(self, message: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool:
        """Ask it for a child, see `Forks.order`."""
        return self._forks.order(message, fds, forked, ended)

    @property
    def children(self) -> int:
        """How many of its children live or are on their way."""
        return self._forks.children

    def close(self) -> None:
        """Let it go, with all below it."""
        self._timer.cancel()
        self._forks.close()
        if self._pidfd >= 0:
            end(self._pidfd)
            self._pidfd = -1
            self._fence.close()
        for pipe in self._pipes:
            pipe.finish()

"""The gateway's end of a process that forks on request: orders out, and back pidfds, exits and what else it says."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from lampyr.node.processes import is_below
from lampyr.runtime.channel import Channel, ChannelError, Message

SHAPES = {
    "forked": int,
    "exited": int,
    "status": int,
    "failed": dict,
    "ready": list,
    "asked": list,
    "warnings": list,
    "hatch": bool,
    "unforked": str,
}

# What the system can lack when descriptors are sent; whoever they were for is well.
SCARCE = frozenset((errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS))
MOST_WHY_CHARS = 200

# What an honest snapshot says is shorter: a stack, or the names of the project's files.
MOST_SAID_BYTES = 4 * 1024 * 1024

Forked = Callable[[int, str], None]  # with its pidfd, or with -1 and, where it is known, what it lacked
Ended = Callable[[int], None]  # with its exit status


class Forks:
    """One process. `told` gets what is no answer to an order; `lost` is called once when it is gone.

    `hatch` is offered a socket for the broker, and says whether it takes it. `forker` is the process's number where it
    runs the user's code: then it may name nobody its child who is not, as we would end whom it names. What it sends is
    closed on a thread, because letting go of something large takes its time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        told: Callable[[Message], None],
        lost: Callable[[], None],
        hatch: Callable[[int], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._channel = channel
        channel.most_bytes = MOST_SAID_BYTES
        channel.may_lose = True
        self._told = told
        self._lost = lost
        self._hatch = hatch
        self._ordered: deque[tuple[Forked, Ended]] = deque()
        self._children: dict[int, Ended] = {}
        self.alive = True
        self.forker = 0
        loop.add_reader(channel.fileno(), self._read)

    def order(self, message: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool:
        """Ask for a child; `forked(pidfd, why)` follows in the order of asking, with -1 where fork failed.

        `ended(status)` follows when it has ended, if this process still lives then.

        False: the process is gone or stuck, and nothing follows. Raises OSError where the system lacks something.
        """
        if not self.say(message, fds):
            return False
        self._ordered.append((forked, ended))
        return True

    @property
    def children(self) -> int:
        """How many children live or have been ordered."""
        return len(self._ordered) + len(self._children)

    def say(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        if not self.alive:
            return False
        try:
            self._channel.send(message, fds, wait=False)
        except OSError as error:  # BlockingIOError too: who does not read a few hundred bytes is stuck
            if error.errno in SCARCE and fds:
                raise
            self.close()
            self._loop.call_soon(self._lost)
            return False
        return True

    def _read(self) -> None:
        try:
            messages, alive = self._channel.drain()
        except ChannelError:
            messages, alive = [], False
        for message, fds in messages:
            self._take(message, fds)
            alive = alive and _is_ours(message)
        if not alive and self.alive:
            self.close()
            self._lost()
            while self._ordered:
                self._ordered.popleft()[0](-1, "")

    def _take(self, message: Message, fds: list[int]) -> None:
        if not _is_ours(message):
            self._let_go(fds)
        elif "hatch" in message and len(fds) == 1 and self._hatch is not None and self._hatch(fds[0]):
            pass  # it is theirs
        elif "forked" in message and fds and self._ordered and self._is_child(fds[0]):
            forked, self._children[message["forked"]] = self._ordered.popleft()
            self._let_go(fds[1:])
            forked(fds[0], "")
        elif ("forked" in message or "unforked" in message) and self._ordered:
            self._let_go(fds)
            lacked = "" if "forked" in message and fds else "the server has no descriptor for it"
            self._ordered.popleft()[0](-1, message.get("unforked", lacked)[:MOST_WHY_CHARS])
        else:
            self._let_go(fds)
            if "exited" not in message:
                self._told(message)
            elif (ended := self._children.pop(message["exited"], None)) is not None:
                ended(message.get("status", 0))

    def _is_child(self, fd: int) -> bool:
        return _is_process(fd) and (not self.forker or is_below(fd, self.forker))

    def _let_go(self, fds: list[int]) -> None:
        for fd in fds:
            self._loop.run_in_executor(None, os.close, fd)

    def close(self) -> None:
        """Hang up; the process takes that as the order to end."""
        if self.alive:
            self.alive = False
            self._loop.remove_reader(self._channel.fileno())
            with suppress(OSError):
                self._channel.sock.shutdown(socket.SHUT_RDWR)
            self._loop.run_in_executor(None, self._channel.close)


def _is_ours(message: Message) -> bool:
    """Whether a message has the shape of those we send: the user's code is in a snapshot too, and may send others."""
    return all(isinstance(message[name], kind) for name, kind in SHAPES.items() if name in message)


def _is_process(fd: int) -> bool:
    """Whether `fd` is a pidfd, of whichever process."""
    try:
        signal.pidfd_send_signal(fd, 0)
    except OSError as error:
        return error.errno != errno.EBADF
    return True

"""Forking on request: a snapshot's children, from the order for each to the word that it has ended."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress

# By these names an import may put others in their place: gevent's would wait for children by themselves.
from os import waitpid
from select import POLLIN, poll
from typing import TYPE_CHECKING, NoReturn

from lampyr.runtime.channel import Channel, Message

if TYPE_CHECKING:
    from lampyr.runtime.image import Image

ROOM_TMP = "/tmp"
# Where a room's instances may leave files. In the second is memory that processes share by name (shm_overview(7)).
PLACES = (ROOM_TMP, "/dev/shm")
# Somebody waits for what a new child will answer. Where it has the same core, telling about it comes after that.
ASIDE_MS = 3
# A process that has not been told anything for so long has time to tidy up.
REST_MS = 1000


class Forker:
    """Forks children on request over one channel and reports each that has ended."""

    def __init__(self, channel: Channel, image: Image | None = None) -> None:
        """`image` has the pages that this process gives back whenever nothing has happened for a while."""
        self.channel = channel
        channel.may_lose = True
        self._image = image
        self.children: dict[int, int] = {}  # pidfd -> pid
        self.poll = poll()
        self.poll.register(channel.fileno(), POLLIN)
        self._aside = poll()
        self._aside.register(channel.fileno(), POLLIN)

    def next_request(self) -> tuple[Message, list[int]]:
        """Wait for a request, reaping meanwhile. When the peer has closed, end the children and this process."""
        if (arrived := self.channel.next()) is not None:
            return arrived
        while True:
            for fd, _ in self._events():
                if fd in self.children:
                    self.reap(fd)
                elif (request := self.channel.receive()) is not None:
                    return request
                else:
                    self.end()

    def _events(self) -> list[tuple[int, int]]:
        if self._image is not None:
            if events := self.poll.poll(REST_MS):
                return events
            self._image.give_back()
        return self.poll.poll()

    def fork(self, fork: Callable[[], int], fds: list[int]) -> bool:
        """Fork. True in the child; here the descriptors that are the child's are closed and the peer is told."""
        pid = -1
        try:
            if not fds:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = fork()
        except OSError as error:  # a limit has been reached; the peer closes its ends
            self.tell({"unforked": str(error)})
        if pid == 0:
            return True
        for fd in fds:
            os.close(fd)
        if pid > 0:
            if not self.channel.holds_more():
                self._aside.poll(ASIDE_MS)
            self._forked(pid)
        return False

    def _forked(self, pid: int) -> None:
        """Tell the peer about a new child. The pidfd cannot come to mean another process, as a pid can."""
        try:
            pidfd = self._watch(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            waitpid(pid, 0)
            self.tell({"unforked": str(error)})
        else:
            self.tell({"forked": pid}, (pidfd,))

    def _watch(self, pid: int) -> int:
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        self.poll.register(pidfd, POLLIN)
        return pidfd

    def reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(waitpid(pid, 0)[1])
        self.end_orphans()
        self.tell({"exited": pid, "status": status})

    def tell(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        try:
            self.channel.send(message, fds)
        except OSError:  # nobody is there to hear it, or to give another order
            self.end()

    def end_orphans(self) -> None:
        """End what an ended instance left behind: as its subreaper this process has become the parent."""
        known = set(self.children.values())
        rounds = 0
        while strangers := [pid for pid in _children() if pid not in known]:
            rounds += 1
            if rounds > 2 and os.getpid() == 1:
                os.kill(-1, signal.SIGSTOP)  # a fork bomb is faster than we are; what is stopped does not fork
            for pid in strangers:
                os.kill(pid, signal.SIGKILL)
                waitpid(pid, 0)
        if rounds > 2 and os.getpid() == 1:
            os.kill(-1, signal.SIGCONT)  # other instances, and what they have started

    def end(self) -> NoReturn:
        """End with everything below: what a child leaves behind comes to us. The first process of a room takes all."""
        while os.getpid() != 1 and (pids := _children()):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for pid in pids:
                waitpid(pid, 0)
        os._exit(0)

    def close(self) -> None:
        """In a child: let go of everything that belongs to its parent."""
        self.channel.close()
        if self._image is not None:
            self._image.close()
        for pidfd in self.children:
            os.close(pidfd)


class TidyForker(Forker):
    """In a room, where nobody outside can do it, removes the temporary files of instances that have ended."""

    def __init__(self, channel: Channel, image: Image | None = None) -> None:
        super().__init__(channel, image)
        self._kept = _entries()  # what the import made is every instance's
        self._folders: dict[int, str] = {}  # pid -> folder
        self._next = ""

    def next_request(self) -> tuple[Message, list[int]]:
        order, fds = super().next_request()
        order["tmp"] = self._next = f"{ROOM_TMP}/{os.path.basename(order['tmp'])}"
        return order, fds

    def _forked(self, pid: int) -> None:
        self._folders[pid] = self._next
        super()._forked(pid)

    def reap(self, pidfd: int) -> None:
        folder = self._folders.pop(self.children[pidfd], None)
        super().reap(pidfd)
        if folder is not None:  # not a sweeper
            self._sweep({folder} if self._folders else {folder} | _entries() - self._kept)

    def _sweep(self, entries: set[str]) -> None:
        """Remove what has files in it in a process of its own, as there may be many; its memory is shared with ours."""
        full = [entry for entry in entries if not _removed(entry)]
        try:
            pid = os.fork() if full else -1
        except OSError:  # a limit has been reached; the last instance that ends finds them
            return
        if pid == 0:
            for entry in full:
                if os.path.isdir(entry) and not os.path.islink(entry):
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry)
            os._exit(0)
        if pid > 0:
            try:
                self._watch(pid)
            except OSError:
                waitpid(pid, 0)


def _entries() -> set[str]:
    return {f"{place}/{name}" for place in PLACES for name in os.listdir(place)}


def _removed(path: str) -> bool:
    """Whether `path` was an empty folder, or not there any more."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]

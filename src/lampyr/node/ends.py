"""The other end of a connection from this machine: whose socket it is (Linux, sock_diag(7)).

The kernel answers in 11 us, without any help of the process that has connected, and to everybody.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lampyr.node.instance import Instance

# linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_SERVICE, _CLASS = 5, 6  # attributes: type of service of version 4, traffic class of version 6
_HEADER = struct.Struct("=IHHII")
_WANTED = struct.Struct("=BBBBI")
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface and cookie
_OWNER = struct.Struct("=II")
_OWNER_AT, _ATTRIBUTES_AT = 16 + 64, 16 + 72
_ATTRIBUTE = struct.Struct("=HH")
# A tree of processes below an instance; who has more is not looked through further.
_MAX_PROCESSES = 256


class End(NamedTuple):
    """A socket as the kernel shows it: its user, its inode, its type of service."""

    user: int
    inode: int
    service: int


class Ends:
    """Asks the kernel. Where it cannot be asked, nobody is ever found."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._kernel: socket.socket | None = None
        try:
            self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG)
        except (AttributeError, OSError):
            pass  # not Linux, or not allowed: `asks` says so

    @property
    def asks(self) -> bool:
        """Whether the kernel can be asked."""
        return self._kernel is not None

    def close(self) -> None:
        """Ask no more."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def find(self, peer: tuple[str, int], own: tuple[str, int]) -> End | None:
        """The socket at `peer` that is connected to `own`, if it is on this machine."""
        if self._kernel is None:
            return None
        number = next(self._numbers) & 0xFFFFFFFF
        try:
            self._kernel.send(_question(number, peer, own))
            while True:
                answer = self._kernel.recv(4096, socket.MSG_DONTWAIT)
                _, kind, _, asked, _ = _HEADER.unpack_from(answer)
                if asked == number:
                    return _read(answer) if kind == _BY_FAMILY else None
        except (OSError, ValueError, struct.error):
            return None


def answers() -> bool:
    """Whether the kernel says whose a connection on this machine is: tried with one of our own."""
    ends = Ends()
    if not ends.asks:
        return False
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            found = ends.find(client.getsockname(), client.getpeername())
            return found is not None and found.inode == os.fstat(client.fileno()).st_ino
    except OSError:
        return False
    finally:
        ends.close()


def _question(number: int, peer: tuple[str, int], own: tuple[str, int]) -> bytes:
    hosts = [host.removeprefix("::ffff:").partition("%")[0] for host in (peer[0], own[0])]
    family = socket.AF_INET6 if ":" in hosts[0] else socket.AF_INET
    addresses = [socket.inet_pton(family, host).ljust(16, b"\0") for host in hosts]
    ends = struct.pack("!HH16s16s", peer[1], own[1], *addresses)
    extensions = 1 << (_SERVICE - 1) | 1 << (_CLASS - 1)
    wanted = _WANTED.pack(family, socket.IPPROTO_TCP, extensions, 0, 0xFFFFFFFF) + ends + _ANY
    return _HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _REQUEST, number, 0) + wanted


def _read(answer: bytes) -> End:
    service = 0
    at, end = _ATTRIBUTES_AT, _HEADER.unpack_from(answer)[0]
    while at + 5 <= end:
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind in (_SERVICE, _CLASS):
            service = service or answer[at + 4]
        at += max(length + 3 & ~3, 4)
    user, inode = _OWNER.unpack_from(answer, _OWNER_AT)
    return End(user, inode, service)


def holder(instances: Iterable[Instance], inode: int) -> Instance | None:
    """The one of `instances` that has the socket open, itself or in a process that it has started."""
    roots = {pid: instance for instance in instances if (pid := instance.host_pid())}
    target = f"socket:[{inode}]"
    for pid, instance in roots.items():
        if _has_open(pid, target):
            return instance
    for pid, instance in roots.items():
        if any(_has_open(child, target) for child in _descendants(pid)):
            return instance
    return None


def held_outside(inode: int, root: int) -> bool:
    """Whether a process of this user has the socket open that the process `root` has not started (milliseconds).

    False for one that nobody may look into, as instances are; what they have started can be looked into.
    """
    user, target = os.geteuid(), f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if name.isdigit() and _owner(name) == user and _has_open(int(name), target) and not _is_below(int(name), root):
            return True
    return False


def _owner(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _is_below(pid: int, root: int) -> bool:
    while pid > 1 and pid != root:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return pid == root


def _has_open(pid: int, target: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{folder}/{fd}") == target for fd in os.listdir(folder))
    except OSError:  # it has ended, or may not be looked at
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _descendants(pid: int) -> Iterator[int]:
    pending = _children(pid)
    for _ in range(_MAX_PROCESSES):
        if not pending:
            return
        child = pending.pop()
        yield child
        pending += _children(child)


def _children(pid: int) -> list[int]:
    """Of all its threads: who waits for a program in a thread has started it there."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found

"""A channel between two of our processes: JSON messages with file descriptors, over an inherited Unix socketpair."""

from __future__ import annotations

import array
import json
import os
import socket
import sys
from typing import Any

LENGTH_BYTES = 4
# A message is a deployment at the largest; a peer that announces more is broken or hostile.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_FDS = 8
# One read ends behind the first bytes of a message that brings some; those of the message before may be there yet.
MOST_WAITING_FDS = 2 * MAX_FDS
# Room for as many as can be sent at once (the kernel's SCM_MAX_FD): those without room the kernel would close in the
# middle of our reading, however long that takes.
FDS_SPACE_BYTES = socket.CMSG_SPACE(253 * 4)

Message = dict[str, Any]


def parcel(data: bytes) -> int:
    """A descriptor to send with a message when `data` is more than a peer that is busy would let through at once."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("parcel")
    else:
        import tempfile

        fd, name = tempfile.mkstemp()
        os.unlink(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def unpack(fd: int) -> bytes:
    """What a parcel holds; closes it."""
    try:
        return read_parcel(fd)
    finally:
        os.close(fd)


def read_parcel(fd: int) -> bytes:
    """What a parcel holds, for every holder of a copy of the descriptor alike: they share one position in it."""
    data = bytearray()
    while part := os.pread(fd, 1 << 20, len(data)):
        data += part
    return bytes(data)


class ChannelError(Exception):
    """The peer sent what is not a message; the channel cannot be used any more."""


class Channel:
    """One end. `send` and `receive` block; `drain` does not, for those who wait in an event loop.

    Descriptors travel with the first byte of their message (unix(7), SCM_RIGHTS) and arrive close-on-exec.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.most_bytes = MAX_MESSAGE_BYTES  # of a message that is read
        self.may_lose = False  # a message whose descriptors this process has no room for comes without them
        self._data = bytearray()
        self._fds: list[int] = []
        self._lost = False

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(left), cls(right)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The end that this process inherited as `fd`."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self.sock.close()

    def send(self, message: Message, fds: tuple[int, ...] = (), *, wait: bool = True) -> None:
        """Send one message. Raises OSError when the peer is gone.

        With `wait=False` a peer that does not read raises BlockingIOError instead of holding the caller.
        """
        if fds:
            message = {**message, "fds": len(fds)}
        text = json.dumps(message, separators=(",", ":")).encode()
        data = memoryview(len(text).to_bytes(LENGTH_BYTES, "big") + text)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        flags = 0 if wait else socket.MSG_DONTWAIT
        sent = self.sock.sendmsg([data], rights, flags)
        while sent < len(data):
            sent += self.sock.send(data[sent:], flags)

    def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for one message and its descriptors; None when the peer has closed. Raises ChannelError."""
        while (ready := self.next()) is None:
            if not self._read(0):
                return None
        return ready

    def drain(self) -> tuple[list[tuple[Message, list[int]]], bool]:
        """The messages that have arrived, and whether the peer is still there. Never waits. Raises ChannelError."""
        messages: list[tuple[Message, list[int]]] = []
        alive = True
        while alive and len(messages) < 64:
            while (ready := self.next()) is not None:
                messages.append(ready)
            try:
                alive = self._read(socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                break
        return messages, alive

    def _read(self, flags: int) -> bool:
        try:
            data, rights, told, _ = self.sock.recvmsg(65536, FDS_SPACE_BYTES, flags | socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        if told & socket.MSG_CTRUNC:
            self._lost = self.may_lose
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                usable = len(payload) - len(payload) % 4
                self._fds.extend(array.array("i", payload[:usable]))
        if len(self._fds) > MOST_WAITING_FDS:
            raise ChannelError(f"{len(self._fds)} descriptors came without the messages they belong to")
        self._data += data
        return bool(data)

    def holds_more(self) -> bool:
        """Whether (a part of) another message has been read already."""
        return bool(self._data)

    def next(self) -> tuple[Message, list[int]] | None:
        """A message that has arrived already, along with an earlier one. Whoever polls the socket asks here first."""
        if len(self._data) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._data[:LENGTH_BYTES], "big")
        if length > self.most_bytes:
            raise ChannelError(f"a message of {length} bytes was announced; at most {self.most_bytes} are read")
        end = LENGTH_BYTES + length
        if len(self._data) < end:
            return None
        try:
            message = json.loads(self._data[LENGTH_BYTES:end])
        except (ValueError, RecursionError) as error:
            raise ChannelError("a message is not JSON") from error
        if not isinstance(message, dict):
            raise ChannelError("a message is not a JSON object")
        del self._data[:end]
        # Messages that arrive in one read keep their own descriptors because each says how many it brought.
        count = message.pop("fds", 0)
        if self._lost and isinstance(count, int) and count > len(self._fds):
            self._lost = False
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
            return message, []
        if not isinstance(count, int) or not 0 <= count <= len(self._fds):
            raise ChannelError("a message came without its descriptors")
        fds, self._fds = self._fds[:count], self._fds[count:]
        return message, fds


def introduced() -> tuple[Channel, Message, list[int]]:
    """In a process of the supervisor's: the channel to it, and what it says first. Exits where nobody is there."""
    supervisor = Channel.from_fd(int(sys.argv[1]))
    received = supervisor.receive()
    if received is None:
        sys.exit(0)
    return supervisor, *received

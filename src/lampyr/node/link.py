"""The socket between the gateway and one instance: frames that leave, packets that come or are taken back unread."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from lampyr.runtime import wire

# Requests to an instance that serves one at a time travel in packets: each is read by itself, or taken back unread.
# Where the system has no such sockets (macOS) nothing waits in them.
PACKETS = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_STREAM) if sys.platform == "linux" else socket.SOCK_STREAM
# Python has no names for it (linux/socket.h, struct ucred); other systems have nothing of the kind.
SCM_CREDENTIALS = 2 if sys.platform == "linux" else 0
CREDENTIALS_BYTES = socket.CMSG_SPACE(12)
# Whether descriptors may be sent to us; from Linux 6.16 on (linux/socket.h). We would have to close them, which takes
# as long as what is behind them is large.
SO_PASSRIGHTS = 83


class Link:
    """`packets` says whether what lies unread in there can be taken back; the process's own end is kept here for that.

    While that is open the socket does not tell of a death; the pidfd does. `on_full` is called when a frame must wait.
    """

    __slots__ = ("_batch", "_closed", "_loop", "_outbox", "_sock", "_theirs", "_unsent", "on_full", "packets", "torn")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, one_at_a_time: bool) -> None:
        kind = PACKETS if one_at_a_time else socket.SOCK_STREAM
        self._loop = loop
        self._sock, self._theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.packets = kind != socket.SOCK_STREAM
        self.on_full: Callable[[], None] = lambda: None
        self.torn = False  # a frame went in several packets, which may not have been read yet
        self._batch = not one_at_a_time
        self._outbox: list[bytes] = []
        self._unsent: deque[bytes] = deque()  # frames that the socket had no room for; of the first, what is left
        self._closed = False
        self._sock.setblocking(False)
        if SCM_CREDENTIALS:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)

    def theirs(self) -> int:
        """The descriptor of the process's end."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        """The process has its end."""
        if not self.packets:
            self._theirs.close()

    # --- what leaves

    def send(self, frame: bytes) -> None:
        """Frames to an instance that serves many calls leave once per turn of the loop: one write instead of many."""
        if self._batch:
            if not self._outbox:
                self._loop.call_soon(self._flush)
            self._outbox.append(frame)
        else:
            self.write(frame)

    def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send now, or as soon as there is room."""
        if self._closed:
            return
        if len(data) > wire.PACKET_BYTES:
            self.torn = True
        if self._unsent:
            self._unsent.append(data)
        elif rest := self._put(data):
            self.on_full()
            self._unsent.append(rest)
            self._loop.add_writer(self._sock, self._write_rest)

    def _put(self, data: bytes) -> bytes:
        """Send what the socket has room for; returns the rest."""
        sent = 0
        try:
            while sent < len(data):
                sent += self._sock.send(data[sent : sent + wire.PACKET_BYTES])
        except (BlockingIOError, InterruptedError):
            return data[sent:]
        except OSError:
            pass  # the end of the socket is about to be read
        return b""

    def _write_rest(self) -> None:
        while self._unsent:
            if rest := self._put(self._unsent.popleft()):
                self._unsent.appendleft(rest)
                return
        self._loop.remove_writer(self._sock)

    def unsent(self) -> list[bytes]:
        """The whole frames that the socket had no room for. None of them has reached the process, or ever will."""
        frames, self._unsent = list(self._unsent), deque()
        if frames:
            self._loop.remove_writer(self._sock)
        return frames[1:] if self.torn else frames  # of the first, a part may have left

    def unread(self) -> bytes:
        """A packet that the process has not read, out of its end; b"" where there is none."""
        try:
            return self._theirs.recv(wire.PACKET_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return b""

    # --- what comes

    def listen(self, come: Callable[[], None]) -> None:
        """Call `come` when there is something to receive."""
        self._loop.add_reader(self._sock, come)

    def ignore(self) -> None:
        """Listen no longer."""
        self._loop.remove_reader(self._sock)

    def receive(self) -> bytes | None:
        """What has come, b"" at the end of the socket, None where nothing has."""
        try:
            return self._sock.recv(wire.PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def receive_first(self) -> tuple[bytes | None, int]:
        """What comes first, and the pid of its sender: the kernel says so with it (unix(7), SCM_CREDENTIALS), or 0.

        The word of the process's birth comes another way, and may come after its first answer.
        """
        try:
            data, rights, *_ = self._sock.recvmsg(wire.PACKET_BYTES, CREDENTIALS_BYTES)
        except (BlockingIOError, InterruptedError):
            return None, 0
        except OSError:
            return b"", 0
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
                return data, int.from_bytes(payload[:4], sys.byteorder)
        return data, 0

    def close(self) -> None:
        """The process is gone."""
        self._closed = True
        self._loop.remove_reader(self._sock)
        if self._unsent:
            self._loop.remove_writer(self._sock)
        self._theirs.close()
        self._sock.close()

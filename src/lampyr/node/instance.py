"""One instance as the gateway sees it: its socket, its process, the calls it serves."""

from __future__ import annotations

import os
import signal
import socket
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from lampyr.core import lifecycle
from lampyr.node.logs import LogPipe
from lampyr.runtime import wire
from lampyr.runtime.snapshot import STACK_SIGNAL

if TYPE_CHECKING:
    from lampyr.node.pool import Pool

# Large enough for a window of any stream at once, small enough to be reused by malloc instead of mapped anew.
READ_BYTES = 64 * 1024
# No frame of an honest instance is larger: bodies leave in pieces of one window.
MAX_FRAME_BYTES = wire.WINDOW_BYTES + 128 * 1024


class Caller(Protocol):
    """Whoever an instance works for: told what comes back, in order. Nothing follows `ended`, `lost` or `refused`."""

    id: str

    def begin(self, instance: Instance) -> None: ...
    def refused(self, code: str, failure: dict[str, object] | None = None) -> None: ...
    def answer(self, fields: list[bytes], body: bytes) -> None: ...
    def head(self, fields: list[bytes]) -> None: ...
    def chunk(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def fail(self, kind: str, text: str) -> None: ...
    def more_body(self, count: int) -> None: ...
    def after(self) -> None: ...
    def done(self) -> None: ...
    def lost(self, why: str) -> None: ...


class Instance:
    """`running` maps streams to callers; `reason` is why it was told to end or killed, None for a death of its own."""

    __slots__ = (
        "_batch",
        "_inbox",
        "_loop",
        "_outbox",
        "_pool",
        "_sock",
        "_streams",
        "_unsent",
        "caller",
        "exit_status",
        "forked_s",
        "idle_since",
        "init_ms",
        "number",
        "pid",
        "pidfd",
        "pipes",
        "reason",
        "running",
        "served",
        "state",
        "tmp",
    )

    def __init__(self, pool: Pool, number: int, sock: socket.socket, pipes: list[LogPipe], tmp: str) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._sock = sock
        self._inbox = b""
        self._outbox: list[bytes] = []
        self._unsent = b""
        self._batch = pool.concurrency > 1
        self._streams = 0
        self.number = number
        self.pipes = pipes
        self.tmp = tmp
        self.pid = 0
        self.pidfd = -1
        self.state: lifecycle.State = "starting"
        self.running: dict[int, Caller] = {}
        self.caller: Caller | None = None
        self.served = 0
        self.forked_s = monotonic()  # uvloop's own clock has whole milliseconds
        self.init_ms = 0.0
        self.idle_since = 0.0
        self.reason: str | None = None
        self.exit_status: int | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    # --- what the gateway says

    def begin(self, caller: Caller, kind: int, fields: list[bytes], body: bytes) -> int:
        """Hand over a request; returns the stream that the caller's further frames name."""
        self._streams = stream = self._streams + 1
        self.running[stream] = caller
        self.caller = caller
        self.served += 1
        self.send(wire.head_frame(stream, kind, fields, body))
        return stream

    def send(self, frame: bytes) -> None:
        """Frames to an instance that serves many calls leave once per turn of the loop: one write instead of many."""
        if self._batch:
            if not self._outbox:
                self._loop.call_soon(self._flush)
            self._outbox.append(frame)
        else:
            self._write(frame)

    def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self.state == "ended":
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # the end of the socket is about to be read
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._sock, self._write_rest)

    def _write_rest(self) -> None:
        data, self._unsent = self._unsent, b""
        self._loop.remove_writer(self._sock)
        self._write(data)

    def retire(self, reason: str) -> None:
        """Finish what runs, take nothing more, exit."""
        if self.state in ("retiring", "ended"):
            return
        self.step("retire")
        self.reason = reason
        self.send(wire.frame(0, wire.RETIRE))

    def print_stack(self) -> None:
        """Have the process write its Python stacks to its log, whatever it is doing (faulthandler)."""
        self._signal(STACK_SIGNAL)

    def kill(self, reason: str) -> None:
        """End the process now; its snapshot ends whatever it leaves behind."""
        self.reason = reason
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError:
            pass

    # --- what the instance says

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._pool.ended(self)
            return
        if self._inbox:
            data = self._inbox + data
        position, end = 0, len(data)
        while end - position >= wire.HEADER_BYTES:
            length, stream, kind = wire.HEADER.unpack_from(data, position)
            start = position + wire.HEADER_BYTES
            if length > MAX_FRAME_BYTES:
                self.kill("it sent a frame larger than any frame can be")
                return
            if end - start < length:
                break
            position = start + length
            if not self._take(stream, kind, data[start:position]):
                self.kill("it sent bytes that are not frames")
                return
        self._inbox = data[position:] if position < end else b""

    def _take(self, stream: int, kind: int, payload: bytes) -> bool:
        """Act on one frame; False for what no instance of ours sends."""
        if kind == wire.HELLO:
            if self.state in ("starting", "retiring"):
                self._pool.hello(self)
                return True
            return False
        caller = self.running.get(stream)
        if caller is None:
            return 0 < stream <= self._streams  # it was cancelled while the frame was on its way
        if kind == wire.CHUNK:
            caller.chunk(payload)
        elif kind == wire.ANSWER:
            caller.answer(*wire.split_head(payload))
        elif kind == wire.HEAD:
            caller.head(wire.split_head(payload)[0])
        elif kind == wire.END:
            caller.end()
        elif kind == wire.FAIL:
            reason, _, text = payload.partition(b"\0")
            caller.fail(reason.decode("ascii", "replace"), text.decode(errors="replace"))
        elif kind == wire.BODY_CREDIT:
            caller.more_body(int.from_bytes(payload[:4], "big"))
        elif kind == wire.AFTER:
            caller.after()
        elif kind == wire.DONE:
            caller.done()
        else:
            return False
        return True

    def release(self, stream: int) -> None:
        """The caller is finished with its stream."""
        if self.running.pop(stream, None) is not None:
            self._pool.freed(self)

    # --- its life

    def step(self, event: lifecycle.Event) -> None:
        self.state = lifecycle.LIFE[self.state, event]

    def read_log(self) -> None:
        for pipe in self.pipes:
            pipe.read()

    def close(self) -> None:
        """The process is gone: let go of everything that belonged to it."""
        self._loop.remove_reader(self._sock)
        if self._unsent:
            self._loop.remove_writer(self._sock)
        self._sock.close()
        for pipe in self.pipes:
            pipe.finish()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

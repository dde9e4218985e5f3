"""An instance: one process that answers the requests its gateway sends over one inherited socket."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from lampyr.runtime import stack, wire
from lampyr.runtime.invocation import Invocation
from lampyr.runtime.loop import Loop
from lampyr.runtime.program import Program
from lampyr.runtime.threads import Workers

if TYPE_CHECKING:
    from lampyr.runtime.asgi import Application

# Requests that are read before what the handlers started otherwise (tasks, timers) gets its turn.
MAX_TURN = 16
HELLO = wire.frame(0, wire.HELLO)


class Instance:
    """Reads frames, starts an invocation per request, and writes what they answer.

    It is made before the fork, and `open` gives it what a process must have for itself. Answers made while one batch of
    frames is read leave in one write; chunks, and whatever comes later, leave at once.
    """

    sock: socket.socket

    def __init__(self, program: Program, loop: Any = None) -> None:
        """`loop` has been made by `bare_loop`, in a process that this one was forked from perhaps."""
        self.program = program
        self.executor = Workers(program.threads, "lampyr")
        self.application = _application(program)
        self.loop: asyncio.AbstractEventLoop = bare_loop() if loop is None else loop
        if os.environ.get("PYTHONASYNCIODEBUG"):  # which asyncio reads when it makes a loop
            self.loop.set_debug(True)
        self.loop.set_default_executor(self.executor)
        self._starter = Starter(self.loop)
        self.running: dict[int, Invocation] = {}
        self.retiring = False
        self._inbox = b""
        self._outbox: list[bytes] = []
        self._unsent = b""
        self.walks = 0  # threads that send what they make themselves
        self._sending = Lock()  # of frames, while there are any
        self._waits_for_room = False
        self._reading = False
        self._one_at_a_time = False
        self.greeted = False  # the gateway knows that requests may come
        self._settled = False
        self._hushed = False  # has said where its handler stands, and is not asked again

    def greet(self, sock: socket.socket) -> None:
        """Say before `open` that requests may come: the first one is on its way while this process gets ready."""
        try:
            sock.send(HELLO)
        except OSError:  # the gateway has let go of this process already
            leave(0)
        self.greeted = True

    def settle(self) -> None:
        """Give the loop, which was made before the fork, what a process must have for itself."""
        if not self._settled:
            self._settled = True
            _own(self.loop)

    def open(self, sock: socket.socket) -> None:
        """Be ready for requests from `sock`, and say so."""
        self.sock = sock
        self._one_at_a_time = sock.type == socket.SOCK_SEQPACKET
        sock.setblocking(False)
        self.settle()
        if self.application is not None:
            self.loop.run_until_complete(self.application.startup())
        self.loop.add_reader(sock, self.read_packets if self._one_at_a_time else self.read)
        if not self.greeted:
            self.send(HELLO)

    def serve(self, sock: socket.socket) -> NoReturn:
        """Be an instance until there is nothing left to do."""
        asyncio.set_event_loop(self.loop)  # not in a rehearsal: the user's code may have set one, or expect none
        os.register_at_fork(after_in_child=sock.close)  # a child that goes on as if it were us must not answer for us
        self.open(sock)
        try:
            self.loop.run_forever()
        except SystemExit as leaving:  # from a task of the user's own; it must not unwind into the snapshot's code
            leave(leaving.code if isinstance(leaving.code, int) else 1)
        except BaseException as error:
            stack.print_trace(error)
            leave(1)
        if self._unsent:  # the rest of an answer that is larger than the socket: the gateway reads
            self.sock.setblocking(True)
            self.flush()
        if self.application is not None:
            self.loop.run_until_complete(self.application.shutdown())
            if self.application.failure is not None and not self.application.failure_told:  # a health fork
                print(f"the application has not started: {self.application.failure}", file=sys.stderr)
                leave(1)
        atexit._run_exitfuncs()
        leave(0)

    def read_packets(self) -> None:
        """Take requests one after another: what is not read can still be taken back and given to another instance."""
        for _ in range(MAX_TURN):
            if not self.read():
                break

    def read(self) -> bool:
        """Take what the gateway sent, False for nothing; a gateway that is gone leaves nobody to answer."""
        try:
            data = self.sock.recv(wire.PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            leave(0)
        if not data:
            leave(0)
        if self._inbox:
            data = self._inbox + data
        self._reading = True
        position, end = 0, len(data)
        while end - position >= wire.HEADER_BYTES:
            length, stream, kind = wire.HEADER.unpack_from(data, position)
            start = position + wire.HEADER_BYTES
            if end - start < length:
                break
            position = start + length
            self.take(stream, kind, data[start:position])
        self._inbox = data[position:] if position < end else b""
        self._reading = False
        if self._outbox:
            self.flush()
        return True

    def take(self, stream: int, kind: int, payload: bytes) -> None:
        """Act on one frame."""
        if kind in (wire.REQUEST, wire.REQUEST_WHOLE):
            if self.running and self._one_at_a_time:
                self.send(wire.frame(stream, wire.BUSY))
                return
            if self._hushed:
                stack.listen()
                self._hushed = False
            fields, body = wire.split_head(payload)
            invocation = Invocation(self, stream, fields, body, whole=kind == wire.REQUEST_WHOLE)
            self.running[stream] = invocation
            if hasattr(asyncio, "_nest_patched"):
                # A handler that runs the loop from within (nest_asyncio) must not do that from within `read`.
                self.loop.call_soon(self._begin, invocation)
            else:
                self._begin(invocation)
            return
        if kind == wire.RETIRE:
            self.retiring = True
            if not self.running:
                self.loop.stop()
            return
        if kind == wire.PING:
            self.send(wire.frame(0, wire.PONG))
            return
        running = self.running.get(stream)
        if running is None:
            return  # it ended while the frame was on its way
        if kind == wire.BODY:
            running.body.feed(payload)
        elif kind == wire.BODY_END:
            running.body.feed_end()
        elif kind == wire.CREDIT:
            running.add_credit(int.from_bytes(payload, "big"))
        elif kind == wire.CANCEL:
            running.cancel(payload)
            if self._one_at_a_time and running.stack_told:
                stack.hush()
                self._hushed = True

    def _begin(self, invocation: Invocation) -> None:
        invocation.task = self._starter.start(invocation.run())

    def ended(self, stream: int) -> None:
        """An invocation is over, with everything it left to run."""
        del self.running[stream]
        if self.retiring and not self.running:
            self.loop.stop()

    def leave(self, status: int, trace: str) -> NoReturn:
        """A handler has called `sys.exit`."""
        print(trace, end="", file=sys.stderr)
        leave(status)

    def hold(self, frame: bytes) -> None:
        """A frame that leaves with the next one."""
        self._outbox.append(frame)

    def send(self, frame: bytes) -> None:
        self._outbox.append(frame)
        if not self._reading:
            self.flush()

    def send_now(self, frame: bytes) -> None:
        """Send a frame that must not wait for the batch: a chunk is on its way when `yield` returns."""
        if not self._unsent and not self._outbox and not self.walks and len(frame) <= wire.PACKET_BYTES:
            try:
                sent = self.sock.send(frame)
            except OSError:  # `flush` finds out what it means
                sent = 0
            if sent == len(frame):
                return
            frame = frame[sent:]
        self._outbox.append(frame)
        self.flush()

    def send_from_thread(self, frame: bytes) -> bool:
        """Send a frame from another thread than the loop's; False where that cannot be done at once."""
        with self._sending:
            if self._unsent or self._outbox or len(frame) > wire.PACKET_BYTES:
                return False
            try:
                sent = self.sock.send(frame)
            except OSError:  # no room, or the gateway is gone: the loop finds out
                return False
            if sent < len(frame):
                self._unsent = frame[sent:]
                self.loop.call_soon_threadsafe(self._await_room)
            return True

    def flush(self) -> None:
        with self._sending:
            data = self._unsent + b"".join(self._outbox)
            self._outbox.clear()
            sent = 0
            try:
                while sent < len(data):
                    sent += self.sock.send(data[sent : sent + wire.PACKET_BYTES])
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                leave(0)
            self._unsent = data[sent:]
        self._await_room()

    def _await_room(self) -> None:
        """Have what is left sent as soon as there is room for it."""
        if bool(self._unsent) != self._waits_for_room:
            self._waits_for_room = not self._waits_for_room
            if self._waits_for_room:
                self.loop.add_writer(self.sock, self.flush)
            else:
                self.loop.remove_writer(self.sock)


def _application(program: Program) -> Application | None:
    if program.app is None or program.methods:
        return None
    from lampyr.runtime.asgi import Application

    return Application(program.app, program.mount)


def bare_loop() -> Any:
    """A loop without a poll object and without a self-pipe, which no process is to share with another.

    The loop cannot be asked for this; the attributes have had these names since asyncio was written, and a test looks.
    """
    loop: Any = Loop()
    loop._close_self_pipe()
    loop._selector._selector.close()
    return loop


def _own(loop: Any) -> None:
    """Give a bare loop what it lacks, in the process that is to run it."""
    loop._selector._selector = type(loop._selector)._selector_cls()
    loop._make_self_pipe()


def leave(status: int) -> NoReturn:
    """End this process at once, keeping what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be anything, None too
            stream.flush()
    os._exit(status)


class Starter:
    """Makes tasks whose first step has been taken: most handlers answer without ever waiting (5 µs less per request).

    It has to be the real task: anyio refuses to leave a cancel scope in another task than it was entered in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._step: Callable[..., object] | None = None
        self._context: contextvars.Context | None = None
        self._catch = self._caught  # bound once

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if sys.version_info >= (3, 12):
            return asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        # Before Python 3.12 a task hands its first step to `call_soon`; here it is caught and run.
        self._loop.call_soon = self._catch  # type: ignore[assignment, method-assign]  # on purpose
        try:
            task = asyncio.Task(coroutine, loop=self._loop)
        finally:
            del self._loop.call_soon  # the instance attribute: the method shows again
        assert self._context is not None and self._step is not None
        self._context.run(self._step)
        return task

    def _caught(self, step: Callable[..., object], *, context: contextvars.Context | None = None) -> None:
        self._step, self._context = step, context

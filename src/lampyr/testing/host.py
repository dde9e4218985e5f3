"""Where the invocations of a test run: an event loop in a thread, and a host for each function."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from lampyr.runtime import wire
from lampyr.runtime.asgi import Application
from lampyr.runtime.invocation import Invocation
from lampyr.runtime.program import Program
from lampyr.runtime.threads import Workers
from lampyr.testing.place import THREADS

# What an import or a startup may take before a test is told that it hangs.
PATIENCE_S = 60.0
# A handler that blocks the loop is left behind in its daemon thread.
CLOSING_S = 5.0
T = TypeVar("T")

OVER = 0  # not a frame: the invocation has ended, with everything it left to run


class Listener(Protocol):
    """Whoever waits for the frames of one invocation; called in the loop's thread."""

    def heard(self, kind: int, payload: bytes) -> None:
        """A frame, or OVER."""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.executor = Workers(THREADS, "lampyr")
        self.loop.set_default_executor(self.executor)
        self._thread = threading.Thread(target=self._run, name="lampyr-testing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = PATIENCE_S) -> T:
        """The result of a coroutine run in the loop. Raises TimeoutError."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def close(self) -> None:
        if self.loop.is_closed():
            return
        try:
            self.run(self._cancel_all(), CLOSING_S)
        except TimeoutError:
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSING_S)
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.loop.close()

    async def _cancel_all(self) -> None:
        """Whatever handlers left running ends here, so that nothing reaches into the next test."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await self.loop.shutdown_asyncgens()


class Host:
    """Runs the invocations of one function in the client's loop (see invocation.Host)."""

    def __init__(self, program: Program, loop: Loop) -> None:
        self.program = program
        self.loop: asyncio.AbstractEventLoop = loop.loop
        self.executor = loop.executor
        self.retiring = False
        self.walks = 0
        self.application: Application | None = None
        self.calls: dict[int, Listener] = {}
        self.running: dict[int, Invocation] = {}
        self._home = loop
        self._streams = itertools.count(1)
        if program.app is not None and not program.methods:
            self.application = loop.run(self._start(program))

    async def _start(self, program: Program) -> Application:
        application = Application(program.app, program.mount)
        await application.startup()
        return application

    def close(self) -> None:
        if self.application is not None and not self.loop.is_closed():
            try:
                self._home.run(self.application.shutdown(), CLOSING_S)
            except TimeoutError:
                pass

    def begin(self, call: Listener, fields: list[bytes], body: bytes, whole: bool) -> int:
        """Start an invocation whose frames go to `call`."""
        stream = next(self._streams)
        self.calls[stream] = call
        self.loop.call_soon_threadsafe(self._begin, stream, fields, body, whole)
        return stream

    def _begin(self, stream: int, fields: list[bytes], body: bytes, whole: bool) -> None:
        invocation = self.running[stream] = Invocation(self, stream, fields, body, whole=whole)
        invocation.task = self.loop.create_task(invocation.run())

    def tell(self, stream: int, kind: int, payload: bytes = b"") -> None:
        """What the gateway would send."""
        self.loop.call_soon_threadsafe(self._take, stream, kind, payload)

    def _take(self, stream: int, kind: int, payload: bytes) -> None:
        running = self.running.get(stream)
        if running is None:
            return
        if kind == wire.CREDIT:
            running.add_credit(int.from_bytes(payload, "big"))
        elif kind == wire.CANCEL:
            running.cancel(payload)
        elif kind == wire.BODY:
            running.body.feed(payload)
        elif kind == wire.BODY_END:
            running.body.feed_end()

    def send(self, frame: bytes) -> None:
        _, stream, kind = wire.HEADER.unpack_from(frame)
        self.calls[stream].heard(kind, frame[wire.HEADER_BYTES :])

    send_now = send
    hold = send

    def send_from_thread(self, frame: bytes) -> bool:
        self.send(frame)
        return True

    def ended(self, stream: int) -> None:
        del self.running[stream]
        self.calls.pop(stream).heard(OVER, b"")

    def leave(self, status: int, trace: str) -> None:
        """Nothing: outside of tests the process ends here, and the client reads FUNCTION_CRASHED."""

"""Calls that may block, run in threads on behalf of one invocation, and ended when it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue  # as it is before an import can put another one in its place (gevent)
from threading import Lock, get_ident
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Workers(ThreadPoolExecutor):
    """The loop's threads. A call in them belongs to the invocation that has asked for it, as with asyncio.to_thread;
    `run_in_executor` alone would lose that: whose lines it prints, and how deep its calls are (runtime/outgoing.py)."""

    def __init__(self, count: int, name: str = "") -> None:
        super().__init__(count, name)
        self._work_queue = SimpleQueue()  # between threads that are threads, whatever has been patched

    def submit(self, call: Callable[P, R], /, *arguments: P.args, **keywords: P.kwargs) -> Future[R]:
        return super().submit(copy_context().run, partial(call, *arguments, **keywords))

    @property
    def crowded(self) -> bool:
        """Whether calls wait for a thread. The standard library has no name for it; a test looks."""
        return not self._work_queue.empty()


class Threads:
    """Runs the sync calls of one invocation, one after the other, all in one context: what a handler sets with
    `ContextVar.set` its generator still sees.

    `interrupted`: the call that runs is to end. That is not told it while somebody holds `lock`.
    """

    __slots__ = ("_context", "_thread", "_workers", "interrupted", "lock")

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._context: Context | None = None
        self.lock = Lock()
        self._thread: int | None = None
        self.interrupted = False

    @property
    def wanted(self) -> bool:
        """Whether somebody else waits for a thread."""
        return self._workers.crowded

    @property
    def busy(self) -> int | None:
        """The thread in which a call runs now."""
        return self._thread

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """`call(*arguments)` in a thread. Cancelled, it raises CancelledError inside the call and waits for its end."""
        if self._context is None:
            self._context = copy_context()
        work = self._workers.submit(self._context.run, self._call, call, arguments)
        future = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not work.done() and not work.cancel():
                self._interrupt()
                await asyncio.wait([future])
            if not future.cancelled() and future.done():
                future.exception()  # seen: whatever the call made of its end, the invocation is cancelled
            raise

    def _call(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with self.lock:
            self._thread = get_ident()
        try:
            return call(*arguments)
        except StopIteration as error:
            # No future can hold one (PEP 479 does the same for generators).
            raise RuntimeError(f"{getattr(call, '__name__', call)} raised StopIteration") from error
        finally:
            with self.lock:
                thread, self._thread = self._thread, None
                interrupted, self.interrupted = self.interrupted, False
            if interrupted and thread is not None:
                _raise_in(thread, None)  # not delivered yet: it must not reach the pool's own code

    def _interrupt(self) -> None:
        """Raise CancelledError where the call is, at its next step of Python (a blocking C call ends first)."""
        with self.lock:
            if self._thread is not None:
                self.interrupted = True
                _raise_in(self._thread, asyncio.CancelledError)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    import ctypes  # 5 ms, and needed only here

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None
    )

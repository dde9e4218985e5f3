"""The event loop of instances: asyncio's own, with handles that cost a third of its.

Not compiled, as a class with an interpreted base is better off interpreted itself, and libraries that patch loops can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heappush
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVarTuple

from lampyr.runtime.handles import Handle, Timer

if TYPE_CHECKING:
    from collections import deque

Taken = TypeVarTuple("Taken")


class Loop(asyncio.SelectorEventLoop):
    """What is out of the ordinary (debug mode, a closed loop) goes to asyncio; its handles and ours may be mixed.

    The attributes used here have had their names since asyncio was written, and tests look.
    """

    if TYPE_CHECKING:
        _debug: bool
        _closed: bool
        _ready: deque[Any]
        _scheduled: list[Any]

    time = staticmethod(monotonic)  # the same as asyncio's, without a frame: three times a timer

    def call_soon(self, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None) -> Any:
        if self._debug or self._closed:
            return _as_called(super().call_soon(callback, *args, context=context))
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> Any:
        if self._debug or self._closed:
            return _as_called(super().call_later(delay, callback, *args, context=context))
        timer = Timer(self.time() + delay, callback, args, self, context)
        heappush(self._scheduled, timer)
        return timer

    def call_at(
        self, when: float, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> Any:
        if self._debug or self._closed or when is None:
            return _as_called(super().call_at(when, callback, *args, context=context))
        timer = Timer(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        return timer


def _as_called(handle: Any) -> Any:
    """Of where a handle was made debug mode keeps the stack, in which our own frame is not wanted."""
    if handle._source_traceback:
        del handle._source_traceback[-1]
    return handle

"""The turns of a loop: waiting, timers, callbacks, as asyncio's own loop takes them, without a frame where compiled.

Each chunk of a stream that sleeps in between takes one timer, two callbacks and a good part of a turn.
"""

from __future__ import annotations

import selectors
from asyncio import BaseEventLoop, Future
from contextvars import Context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from lampyr.runtime.handles import Handle, Timer

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr


def _mark(kind: Any) -> Any:
    return kind


def _marks(**_: bool) -> Any:
    """A mark for the compiler, from a library that nothing else needs."""
    return _mark


globals().setdefault("mypyc_attr", _marks)

# As asyncio has them (base_events.py): when cancelled timers are cleared out of the heap, and how long one wait may be.
MOST_CANCELLED: Final = 50
LONGEST_WAIT_S: Final = 24 * 3600.0
# All bits but EPOLLIN and EPOLLOUT (epoll(7)): an error or an end is both, as `selectors` has it.
NOT_READ: Final = ~1
NOT_WRITE: Final = ~4
EVENT_READ: Final = selectors.EVENT_READ
EVENT_WRITE: Final = selectors.EVENT_WRITE
_EPOLL: Final[Any] = getattr(selectors, "EpollSelector", None)
_ASYNCIO: Final[Any] = BaseEventLoop


@mypyc_attr(allow_interpreted_subclasses=True)
class Turns:
    """Goes in front of `asyncio.SelectorEventLoop`. What is out of the ordinary is done by that.

    The attributes are asyncio's and have had their names since it was written; tests look.
    """

    _clock_resolution: float
    _closed: Any
    _debug: Any
    _ready: Any
    _scheduled: list[Any]
    _selector: Any
    _stopping: Any
    _timer_cancelled_count: int

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        if self._debug or self._closed:
            return _as_called(_ASYNCIO.call_soon(self, callback, *args, context=context))
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
        if self._debug or self._closed:
            return _as_called(_ASYNCIO.call_later(self, delay, callback, *args, context=context))
        loop: Any = self
        timer = Timer(loop.time() + delay, callback, args, self, context)
        heappush(self._scheduled, timer)
        return timer

    def call_at(self, when: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
        if self._debug or self._closed or when is None:
            return _as_called(_ASYNCIO.call_at(self, when, callback, *args, context=context))
        timer = Timer(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        return timer

    def create_future(self) -> Any:
        loop: Any = self
        return Future(loop=loop)

    def get_debug(self) -> Any:
        return self._debug  # every future asks

    def _run_once(self) -> None:
        if self._debug or self._timer_cancelled_count > MOST_CANCELLED:
            _ASYNCIO._run_once(self)
            return
        loop: Any = self
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        wait_s = -1.0
        if ready or self._stopping:
            wait_s = 0.0
        elif scheduled:
            wait_s = min(max(0.0, _when(scheduled[0]) - loop.time()), LONGEST_WAIT_S)
        if events := self._wait(wait_s):
            loop._process_events(events)
        end: float = loop.time() + self._clock_resolution
        while scheduled and _when(scheduled[0]) < end:
            timer = heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if isinstance(handle, Handle):  # twice the same, but the compiler knows what it is
                if not handle._cancelled:
                    handle._run()
            elif not handle._cancelled:
                handle._run()

    def _wait(self, wait_s: float) -> Any:
        """Files that have something to read or to be written into, as a selector says it; -1 waits for one."""
        selector = self._selector
        if type(selector) is not _EPOLL:
            return selector.select(None if wait_s < 0 else wait_s)
        keys = selector._fd_to_key
        try:
            found: list[tuple[int, int]] = selector._selector.poll(wait_s, len(keys) or 1)  # rounds up to whole ms
        except InterruptedError:
            return None
        events = []
        for descriptor, event in found:
            key = keys.get(descriptor)
            if key is not None:
                mask = (EVENT_WRITE if event & NOT_READ else 0) | (EVENT_READ if event & NOT_WRITE else 0)
                events.append((key, mask & key.events))
        return events


def _when(timer: Any) -> float:
    if isinstance(timer, Timer):
        return timer._when
    when: float = timer._when
    return when


def _as_called(handle: Any) -> Any:
    """Of where a handle was made debug mode keeps the stack, in which our own frame is not wanted."""
    trace = handle._source_traceback
    if trace and trace[-1].filename == __file__:
        del trace[-1]
    return handle

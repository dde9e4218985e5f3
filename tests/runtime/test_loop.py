"""The loop of instances does what asyncio's own does: each test runs with both, and says what they have in common."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import selectors
import signal
import socket
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from lampyr.runtime.handles import Handle, Timer
from lampyr.runtime.loop import Loop


@pytest.fixture(params=[asyncio.SelectorEventLoop, Loop])
def loop(request: pytest.FixtureRequest) -> Iterator[Any]:
    loop = request.param()
    yield loop
    loop.close()


def turn(loop: Any, turns: int = 1) -> None:
    for _ in range(turns):
        loop.call_soon(loop.stop)
        loop.run_forever()


def run_for(loop: Any, seconds: float) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def hello() -> None: ...


class Thing:
    """Something to be let go of."""


def test_attributes_of_asyncio_that_are_used() -> None:
    """Whoever makes a Python in which they are gone hears of it here."""
    loop = asyncio.SelectorEventLoop()
    assert loop._debug is False and loop._closed is False  # type: ignore[attr-defined]
    assert loop._scheduled == [] and not loop._ready  # type: ignore[attr-defined]
    assert loop._timer_cancelled_count == 0  # type: ignore[attr-defined]
    timer = loop.call_later(60, hello)
    assert timer._scheduled and not timer._cancelled  # type: ignore[attr-defined]
    timer.cancel()
    assert loop._timer_cancelled_count == 1  # type: ignore[attr-defined]
    assert loop._stopping is False and loop._clock_resolution < 0.001  # type: ignore[attr-defined]
    assert asyncio.BaseEventLoop._run_once and loop._process_events  # type: ignore[attr-defined]
    assert loop._selector._selector and loop._selector.get_map()  # type: ignore[attr-defined]
    assert set(loop._selector._fd_to_key) == set(loop._selector.get_map())  # type: ignore[attr-defined]
    assert asyncio.futures._set_result_unless_cancelled.__code__.co_argcount == 2  # type: ignore[attr-defined]
    loop.close()


def test_ours_are_made() -> None:
    loop = Loop()
    assert type(loop.call_soon(hello)) is Handle
    assert type(loop.call_later(60, hello)) is Timer
    assert type(loop.call_at(loop.time() + 60, hello)) is Timer
    loop.close()


class TestOrder:
    def test_soon_is_first_come_first_served_and_not_within_the_turn(self, loop: Any) -> None:
        seen: list[str] = []

        def again() -> None:
            seen.append("first")
            loop.call_soon(seen.append, "of the first")

        loop.call_soon(again)
        loop.call_soon(seen.append, "second")
        turn(loop)
        assert seen == ["first", "second"]
        turn(loop)
        assert seen == ["first", "second", "of the first"]

    def test_timers_by_time(self, loop: Any) -> None:
        seen: list[int] = []
        now = loop.time()
        for number in (3, 1, 4, 0, 2):
            loop.call_at(now + (number + 1) / 200, seen.append, number)
        loop.call_later(0, seen.append, -1)
        run_for(loop, 0.05)
        assert seen == [-1, 0, 1, 2, 3, 4]

    def test_timers_that_are_due_come_behind_what_is_ready(self, loop: Any) -> None:
        seen: list[str] = []
        loop.call_later(-1, seen.append, "late")
        loop.call_soon(seen.append, "soon")
        turn(loop)
        assert seen == ["soon", "late"]

    def test_no_timer_is_early(self, loop: Any) -> None:
        late_s: list[float] = []
        for number in range(50):
            when = loop.time() + number / 1000
            loop.call_at(when, lambda when=when: late_s.append(loop.time() - when))
        run_for(loop, 0.08)
        assert len(late_s) == 50 and min(late_s) >= -loop._clock_resolution

    def test_whole_numbers_are_times(self, loop: Any) -> None:
        seen: list[int] = []
        assert loop.call_at(int(loop.time()), seen.append, 1).when() == int(loop.time())
        loop.call_later(0, seen.append, 2)
        turn(loop)
        assert sorted(seen) == [1, 2]


class TestCancelling:
    def test_what_is_cancelled_does_not_run(self, loop: Any) -> None:
        seen: list[int] = []
        handles = [loop.call_soon(seen.append, 1), loop.call_later(0, seen.append, 2), loop.call_at(0, seen.append, 3)]
        for handle in handles:
            assert not handle.cancelled()
            handle.cancel()
            handle.cancel()
            assert handle.cancelled()
        turn(loop, 2)
        assert seen == []

    def test_within_the_turn(self, loop: Any) -> None:
        seen: list[int] = []
        handles: list[Any] = []
        loop.call_soon(lambda: [handle.cancel() for handle in handles])
        handles += [loop.call_soon(seen.append, 1), loop.call_at(0, seen.append, 2)]
        turn(loop)
        assert seen == []

    def test_lets_go_of_what_the_callback_would_have_had(self, loop: Any) -> None:
        thing = Thing()
        gone = weakref.ref(thing)
        handles = [loop.call_soon(print, thing), loop.call_later(60, print, thing)]
        del thing
        for handle in handles:
            handle.cancel()
        gc.collect()
        assert gone() is None

    def test_of_what_has_run_changes_nothing(self, loop: Any) -> None:
        timer = loop.call_later(0, hello)
        turn(loop)
        timer.cancel()
        assert timer.cancelled() and loop._timer_cancelled_count == 0

    def test_the_heap_is_cleared_of_many(self, loop: Any) -> None:
        timers = [loop.call_later(60 + number, hello) for number in range(200)]
        for timer in timers[:50]:
            timer.cancel()
            timer.cancel()
        assert loop._timer_cancelled_count == 50
        for timer in timers[-100:]:
            timer.cancel()
        turn(loop)
        assert loop._timer_cancelled_count == 0
        assert sorted(loop._scheduled) == timers[50:100]

    def test_of_a_sleep(self, loop: Any) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(asyncio.sleep(60))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        loop.run_until_complete(main())
        turn(loop)
        assert loop._scheduled == []


class TestErrors:
    @pytest.mark.parametrize("by", ["call_soon", "call_later", "call_at"])
    def test_go_to_the_handler_and_the_loop_goes_on(self, loop: Any, by: str) -> None:
        told: list[dict[str, Any]] = []
        seen: list[int] = []
        loop.set_exception_handler(lambda _, told_of: told.append(told_of))
        error = RuntimeError("no")

        def fail(*_: object) -> None:
            raise error

        handle = getattr(loop, by)(*(() if by == "call_soon" else (0,)), fail, "word")
        loop.call_soon(seen.append, 1)
        turn(loop, 2)
        [told_of] = told
        assert set(told_of) == {"message", "exception", "handle"}
        assert told_of["exception"] is error and told_of["handle"] is handle and seen == [1]
        assert told_of["message"].startswith("Exception in callback TestErrors.")
        assert told_of["message"].endswith(f"fail('word') at {__file__}:{fail.__code__.co_firstlineno}")

    def test_are_logged_where_there_is_no_handler(self, loop: Any, caplog: pytest.LogCaptureFixture) -> None:
        loop.call_soon(lambda: 1 / 0)
        turn(loop, 2)
        [record] = caplog.records
        assert "Exception in callback" in record.message and record.exc_info
        assert record.exc_info[0] is ZeroDivisionError

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_those_that_end_the_process_leave_the_loop(self, loop: Any, kind: type[BaseException]) -> None:
        def leave() -> None:
            raise kind

        loop.call_soon(leave)
        with pytest.raises(kind):
            loop.run_forever()
        assert not loop.is_running()

    def test_a_closed_loop_takes_nothing(self, loop: Any) -> None:
        loop.close()
        for call in (loop.call_soon, lambda *_: loop.call_later(0, hello), lambda *_: loop.call_at(0, hello)):
            with pytest.raises(RuntimeError, match="closed"):
                call(hello)

    def test_a_timer_needs_a_time(self, loop: Any) -> None:
        with pytest.raises(TypeError):
            loop.call_later(None, hello)
        with pytest.raises(TypeError):
            loop.call_at(None, hello)


class TestContext:
    def test_is_a_copy_or_the_one_that_is_given(self, loop: Any) -> None:
        word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")
        seen: list[str] = []
        given = contextvars.copy_context()
        given.run(word.set, "given")
        loop.call_soon(lambda: seen.append(word.get()), context=given)
        loop.call_later(0, lambda: seen.append(word.get()), context=given)
        loop.call_at(0, lambda: seen.append(word.get()))
        loop.call_soon(word.set, "changed", context=given)
        turn(loop)
        assert sorted(seen) == ["changed", "given", "none"] and word.get() == "none"
        assert given[word] == "changed"


class TestDebugMode:
    def test_is_asyncios_own(self, loop: Any, caplog: pytest.LogCaptureFixture) -> None:
        loop.set_debug(True)
        loop.slow_callback_duration = 0.01
        handle = loop.call_soon(time.sleep, 0.02)
        assert type(handle) is asyncio.Handle
        assert type(loop.call_later(60, hello)) is asyncio.TimerHandle
        turn(loop, 2)
        assert "Executing" in caplog.text
        with pytest.raises(TypeError):
            loop.call_soon(asyncio.sleep)
        with pytest.raises(RuntimeError, match="thread"):
            loop.run_until_complete(asyncio.to_thread(loop.call_soon, hello))
        frame = traceback.extract_stack()[-1]
        for handle in (loop.call_soon(hello), loop.call_later(60, hello), loop.call_at(60, hello)):
            assert f"created at {frame.filename}:{frame.lineno + 1}" in repr(handle)  # type: ignore[operator]

    def test_may_begin_and_end_while_callbacks_wait(self, loop: Any) -> None:
        seen: list[int] = []
        now = loop.time()
        for number in range(40):
            loop.set_debug(number % 3 == 0)
            loop.call_at(now + (number * 7 % 40) / 2000, seen.append, number * 7 % 40)
        for debug in (True, False):
            loop.set_debug(debug)
            loop.call_soon(seen.append, -1)
            loop.set_debug(not debug)
            turn(loop)
        run_for(loop, 0.06)
        assert [number for number in seen if number >= 0] == list(range(40)) and seen.count(-1) == 2


class Told(asyncio.Future[Any]):
    """A future of somebody's own: what sets its result runs where the call was made."""

    def set_result(self, result: Any) -> None:
        super().set_result((result, WORD.get()))


WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


class TestSleeps:
    def test_end_with_their_result(self, loop: Any) -> None:
        assert loop.run_until_complete(asyncio.sleep(0.001, "word")) == "word"

    def test_of_a_future_that_is_over(self, loop: Any) -> None:
        settle: Any = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, told_of: told.append(told_of))
        cancelled, done = loop.create_future(), loop.create_future()
        cancelled.cancel()
        done.set_result(1)
        for future in (cancelled, done):
            loop.call_later(0, settle, future, 2)
        turn(loop, 2)
        assert cancelled.cancelled() and done.result() == 1
        assert [type(one["exception"]) for one in told] == [asyncio.InvalidStateError]

    def test_of_a_future_of_somebodys_own(self, loop: Any) -> None:
        future = Told(loop=loop)
        context = contextvars.copy_context()
        context.run(WORD.set, "given")
        settle: Any = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
        loop.call_later(0, settle, future, 1, context=context)
        assert loop.run_until_complete(future) == (1, "given")

    def test_futures_know_their_loop_and_its_mode(self, loop: Any) -> None:
        assert loop.create_future().get_loop() is loop and loop.create_future()._source_traceback is None
        loop.set_debug(True)
        assert loop.create_future()._source_traceback and loop.get_debug()


class TestPatchedLoops:
    """Libraries that let loops run within loops put functions of their own into the class."""

    def test_the_turn_may_be_another(self, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []

        def run_once(loop: Any) -> None:
            seen.append(len(loop._ready))
            while loop._ready:
                loop._ready.popleft()._run()

        monkeypatch.setattr(type(loop), "_run_once", run_once)
        turn(loop)
        assert seen == [1]

    def test_calls_may_be_others(self, loop: Any) -> None:
        seen: list[Any] = []
        loop.call_soon = lambda callback, *args, context=None: seen.append(args)
        future = loop.create_future()
        future.add_done_callback(hello)
        future.set_result(None)
        del loop.call_soon
        assert seen == [(future,)] and not loop._ready


@pytest.mark.parametrize("kind", [selectors.DefaultSelector, selectors.SelectSelector, selectors.PollSelector])
@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, Loop])
class TestSelectors:
    def test_both_directions_of_a_socket(self, make: Any, kind: Any) -> None:
        loop = make(kind())
        ours, theirs = socket.socketpair()
        seen: list[str] = []
        loop.add_reader(ours, lambda: seen.append("read"))
        loop.add_writer(ours, lambda: seen.append("write"))
        turn(loop)
        assert seen == ["write"]
        theirs.send(b"word")
        turn(loop)
        assert sorted(seen) == ["read", "write", "write"]
        loop.remove_writer(ours)
        turn(loop)
        assert seen.count("write") == 2 and seen.count("read") == 2
        for end in (ours, theirs):
            end.close()
        loop.close()

    def test_an_end_is_something_to_read_and_to_write(self, make: Any, kind: Any) -> None:
        loop = make(kind())
        reader, writer = os.pipe()
        seen: list[bytes] = []
        loop.add_reader(reader, lambda: seen.append(os.read(reader, 9)))
        os.close(writer)
        turn(loop)
        assert seen == [b""] and loop.remove_reader(reader)
        os.close(reader)
        loop.close()

    def test_waits_no_longer_than_until_the_next_timer(self, make: Any, kind: Any) -> None:
        loop = make(kind())
        begun_s, used_s = time.monotonic(), time.thread_time()
        loop.run_until_complete(asyncio.sleep(0.2))
        assert time.monotonic() - begun_s >= 0.2 and time.thread_time() - used_s < 0.1
        loop.close()


class TestOtherWaysIn:
    def test_threads(self, loop: Any) -> None:
        async def main() -> float:
            begun_s = time.monotonic()
            assert await loop.run_in_executor(None, time.sleep, 0.05) is None
            thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(ready.set))
            ready = asyncio.Event()
            thread.start()
            await asyncio.wait_for(ready.wait(), 30)
            thread.join()
            return time.monotonic() - begun_s

        assert 0.1 <= loop.run_until_complete(main()) < 20

    def test_signals(self, loop: Any) -> None:
        seen: list[int] = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        loop.add_signal_handler(signal.SIGUSR2, loop.stop)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.call_later(0.02, os.kill, os.getpid(), signal.SIGUSR2)
        loop.run_forever()
        assert seen == [1]
        assert loop.remove_signal_handler(signal.SIGUSR1) and loop.remove_signal_handler(signal.SIGUSR2)

    def test_descriptors(self, loop: Any) -> None:
        reader, writer = os.pipe()
        seen: list[bytes] = []
        loop.add_reader(reader, lambda: seen.append(os.read(reader, 9)) or loop.stop())  # type: ignore[func-returns-value]
        loop.call_later(0.01, os.write, writer, b"word")
        loop.run_forever()
        assert seen == [b"word"] and loop.remove_reader(reader)
        os.close(reader)
        os.close(writer)


class TestWholePrograms:
    def test_stop_ends_the_turn_and_what_it_left_runs_next_time(self, loop: Any) -> None:
        seen: list[int] = []
        loop.call_soon(loop.stop)
        loop.call_soon(seen.append, 1)
        loop.call_soon(lambda: loop.call_soon(seen.append, 2))
        loop.run_forever()
        assert seen == [1]
        turn(loop)
        assert seen == [1, 2]

    def test_timeouts_groups_and_queues(self, loop: Any) -> None:
        async def worker(queue: asyncio.Queue[int], out: list[int]) -> None:
            while (number := await queue.get()) >= 0:
                await asyncio.sleep(number / 1000)
                out.append(number)

        async def main() -> list[int]:
            queue: asyncio.Queue[int] = asyncio.Queue(1)
            out: list[int] = []
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(worker(queue, out))
                for number in (30, 1, 1, -1, -1, -1):
                    await queue.put(number)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(60)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(60), 0.01)
            done, waiting = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(n)) for n in (0, 60)], timeout=0.01)
            assert len(done) == len(waiting) == 1
            waiting.pop().cancel()
            return out

        assert loop.run_until_complete(main()) == [1, 1, 30]

    def test_anyio(self, loop: Any) -> None:
        async def main() -> list[str]:
            seen = []
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep(60)
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    await anyio.sleep(60)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 60)
                seen.append(await anyio.to_thread.run_sync(lambda: "thread"))
                group.cancel_scope.cancel()
            return seen

        assert loop.run_until_complete(main()) == ["thread"]


@pytest.mark.parametrize("make", [lambda loop: loop.call_soon(hello), lambda loop: loop.call_at(7.5, hello)])
@pytest.mark.parametrize("cancelled", [False, True])
def test_handles_describe_themselves_as_asyncios_do(make: Callable[[Any], Any], cancelled: bool) -> None:
    texts = []
    for kind in (asyncio.SelectorEventLoop, Loop):
        loop = kind()
        handle = make(loop)
        if cancelled:
            handle.cancel()
        texts.append(repr(handle))
        loop.close()
    assert texts[0] == texts[1] and ("cancelled" in texts[1]) == cancelled


def test_timers_are_compared_with_asyncios() -> None:
    loop = Loop()
    ours, theirs = Timer(1.0, hello, (), loop, None), asyncio.TimerHandle(2.0, hello, (), loop)
    assert ours < theirs and theirs > ours and not theirs < ours and not ours > theirs
    assert ours < Timer(1.5, hello, (), loop, None)
    loop.close()

"""What becomes of a handler whose client leaves, whose time is up, or that ends the process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lampyr import ClientDisconnect, Request
from lampyr.runtime import wire


async def waits(request: Request) -> None:
    try:
        print("begun", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("finally", request.signal.aborted, flush=True)


async def reads(request: Request) -> None:
    try:
        print("begun", flush=True)
        await request.json()
    finally:
        print("finally", request.signal.aborted, flush=True)


async def streams(request: Request) -> AsyncIterator[str]:
    try:
        print("begun", flush=True)
        while True:
            await asyncio.sleep(0.01)
            yield "x"
    finally:
        print("finally", request.signal.aborted, flush=True)


async def floods(request: Request) -> AsyncIterator[bytes]:
    try:
        print("begun", flush=True)
        while True:
            yield b"x" * 65536
    finally:
        print("finally", request.signal.aborted, flush=True)


def works(request: Request) -> None:
    try:
        print("begun", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        print("finally", request.signal.aborted, flush=True)


@pytest.mark.parametrize("handler", [waits, reads, streams, floods, works])
@pytest.mark.parametrize("reason", [b"client", b"deadline"])
def test_a_handler_is_cancelled(serve: Callable[..., Any], handler: Any, reason: bytes) -> None:
    gateway = serve(POST=handler)
    stream = gateway.send("POST", whole=False)
    gateway.wait_for_log("begun")
    gateway.frame(stream, wire.CANCEL, reason)
    assert gateway.answer(stream).failure[0] == "cancelled"
    assert "finally True" in gateway.log


def test_reading_from_a_client_that_left(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> str:
        try:
            async for _ in request.stream():
                pass
        except (ClientDisconnect, asyncio.CancelledError) as error:
            print(type(error).__name__, flush=True)
            raise
        return "complete"

    gateway = serve(POST=handler)
    stream = gateway.send("POST", whole=False)
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).failure[0] == "cancelled" and gateway.log


def test_waiting_for_the_signal(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> str:
        async def watch() -> None:
            await request.signal.wait()
            print("watched", flush=True)

        watcher = asyncio.create_task(watch())
        try:
            await asyncio.sleep(3600)
        finally:
            await watcher
            await request.signal.wait()
        return "never"

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).failure[0] == "cancelled" and "watched" in gateway.log


def test_an_error_while_being_cancelled_reaches_the_log(serve: Callable[..., Any]) -> None:
    async def handler() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("while cleaning up")

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, b"client")
    kind, text = gateway.answer(stream).failure
    assert kind == "cancelled" and "while cleaning up" in text


def test_a_handler_that_swallows_its_cancellation_still_ends_once(serve: Callable[..., Any]) -> None:
    async def handler() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "stubborn"
        return "never"

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).kinds == [wire.ANSWER]


def test_a_cancellation_of_its_own_is_a_failure(serve: Callable[..., Any]) -> None:
    async def handler() -> None:
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel()
        await task

    kind, text = serve(GET=handler).call().failure
    assert kind == "raised" and "CancelledError" in text


def test_others_are_not_disturbed(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> str:
        await asyncio.sleep(0.1)
        return "done"

    gateway = serve(GET=handler)
    stays, leaves = gateway.send(), gateway.send()
    gateway.frame(leaves, wire.CANCEL, b"client")
    assert gateway.answer(leaves).failure[0] == "cancelled" and gateway.answer(stays).text == "done"
    gateway.frame(stays, wire.CANCEL, b"client")  # too late, and no harm
    assert gateway.call().text == "done"


def test_memory_and_other_failures(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> None:
        raise {"memory": MemoryError(), "key": KeyError("x"), "base": KeyboardInterrupt()}[request.query["what"]]

    gateway = serve(GET=handler)
    assert gateway.call("GET", "/?what=memory").failure[0] == "memory"
    kind, text = gateway.call("GET", "/?what=key").failure
    assert kind == "raised" and text.startswith("Traceback") and "KeyError: 'x'" in text
    assert "invocation.py" not in text and "test_leaving.py" in text
    assert gateway.call("GET", "/?what=base").failure[0] == "raised"


def test_the_traceback_of_a_sync_handler_begins_with_its_own_code(serve: Callable[..., Any]) -> None:
    def handler() -> None:
        raise KeyError("x")

    _, text = serve(GET=handler).call().failure
    frames = [line for line in text.splitlines() if line.startswith("  File ")]
    assert len(frames) == 1 and "test_leaving.py" in frames[0]


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_leaving_the_process(serve: Callable[..., Any], kind: str, code: int) -> None:
    async def handler() -> None:
        print("leaving", flush=True)
        raise SystemExit(code)

    def sync_handler() -> None:
        raise SystemExit(code)

    gateway = serve(GET=handler if kind == "async" else sync_handler)
    gateway.send()
    assert not gateway.read()
    assert os.waitstatus_to_exitcode(gateway.end()) == code


def test_retiring_lets_everything_finish(serve: Callable[..., Any]) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.1)
        return "done"

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.frame(0, wire.RETIRE)
    assert gateway.answer(stream).text == "done"
    assert not gateway.read() and os.waitstatus_to_exitcode(gateway.end()) == 0


def test_a_process_whose_output_is_nothing_leaves_all_the_same(serve: Callable[..., Any]) -> None:
    async def handler() -> None:
        sys.stdout = sys.stderr = None
        sys.exit(3)

    gateway = serve(GET=handler)
    gateway.send()
    assert not gateway.read() and os.waitstatus_to_exitcode(gateway.end()) == 3


def test_stop_iteration_in_a_thread_is_a_failure(serve: Callable[..., Any]) -> None:
    def handler() -> Any:
        return next(iter(()))

    assert "raised StopIteration" in serve(GET=handler).call().failure[1]


def test_a_call_that_waits_for_a_thread_never_begins_once_cancelled(serve: Callable[..., Any]) -> None:
    def handler(request: Request) -> str:
        print("begun", request.id, flush=True)
        time.sleep(0.2)
        return "done"

    gateway = serve(GET=handler, threads=1)
    first, second = gateway.send(), gateway.send()
    gateway.frame(second, wire.CANCEL, b"client")
    assert gateway.answer(second).failure[0] == "cancelled" and gateway.answer(first).text == "done"
    assert gateway.log == "begun id-1\n"


def test_leaving_from_a_task_of_its_own(serve: Callable[..., Any]) -> None:
    tasks: list[asyncio.Task[None]] = []  # kept: a loop holds its tasks weakly

    async def leaves() -> None:
        raise SystemExit(3)

    async def handler() -> None:
        tasks.append(asyncio.create_task(leaves()))
        await asyncio.sleep(3600)

    gateway = serve(GET=handler)
    gateway.send()
    assert not gateway.read() and os.waitstatus_to_exitcode(gateway.end()) == 3

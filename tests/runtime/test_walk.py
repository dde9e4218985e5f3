"""Sync iterables: a thread makes the chunks and sends them itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from lampyr import Request, Response
from lampyr.runtime import wire
from lampyr.runtime.threads import Workers


def test_chunks_leave_without_the_loop(serve: Callable[..., Any]) -> None:
    def handler() -> Iterator[str]:
        while True:
            time.sleep(0.01)
            yield "."

    async def blocks() -> str:
        time.sleep(1)
        return "done"

    gateway = serve(GET=handler, POST=blocks)
    stream = gateway.send("GET")
    gateway.wait(stream, wire.CHUNK)
    blocking = gateway.send("POST")
    while not gateway.frames[blocking]:
        assert gateway.read()
    assert len(gateway.frames[stream]) > 20
    gateway.frame(stream, wire.CANCEL, b"client")
    gateway.wait(stream, wire.FAIL)


def test_each_chunk_has_left_before_the_next_is_made(serve: Callable[..., Any]) -> None:
    def handler() -> Iterator[str]:
        for number in range(3):
            yield f"{number}"
        time.sleep(3600)
        yield "never"

    gateway = serve(GET=handler)
    stream = gateway.send()
    while [payload for kind, payload in gateway.frames[stream] if kind == wire.CHUNK] != [b"0", b"1", b"2"]:
        assert gateway.read()


def test_a_walk_makes_way_for_another(serve: Callable[..., Any]) -> None:
    """With fewer threads than streams that never end, all of them go on."""

    def handler() -> Iterator[str]:
        while True:
            time.sleep(0.001)
            yield "."

    gateway = serve(threads=2, GET=handler)
    streams = [gateway.send() for _ in range(5)]
    until = time.monotonic() + 40
    while any(len(gateway.frames[stream]) < 30 for stream in streams):
        assert time.monotonic() < until and gateway.read()
    for stream in streams:
        gateway.frame(stream, wire.CANCEL, b"client")
        gateway.wait(stream, wire.FAIL)


def test_a_client_that_does_not_read_holds_no_thread(serve: Callable[..., Any]) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        size = int(request.query["size"])
        for _ in range(100):
            yield b"x" * size

    gateway = serve(threads=1, GET=handler)
    gateway.send(target="/?size=16384")  # far more than the window
    quick = gateway.send(target="/?size=1")
    assert gateway.answer(quick).body == b"x" * 100


def test_frames_of_threads_and_of_the_loop_do_not_mix(serve: Callable[..., Any]) -> None:
    """Sizes around that of the socket's buffer, eight streams at once: a torn frame would break all that follow."""

    def pieces(seed: str) -> Iterator[bytes]:
        dice = random.Random(seed)
        for _ in range(60):
            yield seed.encode() * dice.choice((1, 100, 5_000, 70_000, 300_000))

    def threaded(request: Request) -> Iterator[bytes]:
        yield from pieces(request.query["seed"])

    async def looped(request: Request) -> AsyncIterator[bytes]:
        for piece in pieces(request.query["seed"]):
            await asyncio.sleep(0)
            yield piece

    gateway = serve(threads=4, GET=threaded, POST=looped)
    seeds = "abcdefgh"
    streams = {
        seed: gateway.send("GET" if at % 2 else "POST", target=f"/?seed={seed}") for at, seed in enumerate(seeds)
    }
    for seed, stream in streams.items():
        assert gateway.answer(stream).body == b"".join(pieces(seed))


def test_a_generator_that_will_not_hear_of_its_end_is_left(serve: Callable[..., Any]) -> None:
    def handler() -> Iterator[str]:
        while True:
            try:
                time.sleep(0.005)
                yield "."
            except asyncio.CancelledError:
                print("refused", flush=True)

    gateway = serve(GET=handler, POST=lambda: "next")
    for _ in range(5):
        stream = gateway.send()
        gateway.wait(stream, wire.CHUNK)
        gateway.frame(stream, wire.CANCEL, b"client")
        gateway.wait(stream, wire.FAIL)
    assert gateway.call("POST").text == "next"


def test_cancelled_at_any_moment_no_frame_is_torn(serve: Callable[..., Any]) -> None:
    def handler() -> Iterator[str]:
        while True:
            yield "0123456789" * 20

    gateway = serve(GET=handler, POST=lambda: "whole")
    for at in range(100):
        stream = gateway.send()
        gateway.wait(stream, wire.CHUNK)
        time.sleep(at / 100_000)
        gateway.frame(stream, wire.CANCEL, b"client")
        gateway.wait(stream, wire.FAIL)
        chunks = {payload for kind, payload in gateway.frames[stream] if kind == wire.CHUNK}
        assert chunks == {b"0123456789" * 20}
        assert gateway.call("POST").text == "whole"


def test_keep_alive_while_a_sync_generator_waits(serve: Callable[..., Any]) -> None:
    def handler() -> Iterator[str]:
        yield "data: 1\n\n"
        time.sleep(0.35)
        yield "data: 2\n\n"

    answer = serve(
        keepalive_s=0.1, GET=lambda: Response(handler(), headers={"content-type": "text/event-stream"})
    ).call()
    assert answer.chunks[0] == b"data: 1\n\n" and answer.chunks[-1] == b"data: 2\n\n"
    assert b": keep-alive\n\n" in answer.chunks


def test_whether_calls_wait_for_a_thread_can_be_seen() -> None:
    """The attribute of ThreadPoolExecutor that `crowded` looks at has no public name."""
    workers, go_on = Workers(1), threading.Event()
    first = workers.submit(go_on.wait)
    while not first.running():
        time.sleep(0.001)
    assert not workers.crowded
    second = workers.submit(lambda: None)
    assert workers.crowded
    go_on.set()
    second.result(40)
    assert not workers.crowded
    workers.shutdown()

"""SPEC 2, streams: a chunk out for each yield, nothing held back, nothing piled up, and failures that show."""

from __future__ import annotations

import re
import select
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
from contract import Line, Place
from serving import WHO, until

WORDS = [b"one", "zwei €".encode(), b"three"]
PIECE_BYTES = 64 * 1024
PIECES = 300
# What the kernel may hold of a stream on its way, and our own windows: far less than the whole stream.
ON_ITS_WAY_BYTES = 12 * 1024 * 1024
GROWTH_BYTES = 4 * 1024 * 1024

STEPS = """
    import marks
    from lampyr import Response, sse, ui_messages

    WORDS = ["one", "zwei €", "three"]

    async def steps(mark, encode=str):
        for number, word in enumerate(WORDS):
            await marks.gate(f"{mark}-{number}")
            yield encode(word)

    def sync_steps(mark, encode=str):
        for number, word in enumerate(WORDS):
            marks.wait(f"{mark}-{number}")
            yield encode(word)

    MAKE = {
        "async": lambda mark: steps(mark),
        "sync": lambda mark: sync_steps(mark),
        "bytes": lambda mark: steps(mark, str.encode),
        "sync-bytes": lambda mark: sync_steps(mark, str.encode),
        "response": lambda mark: Response(steps(mark), headers={"content-type": "text/html; charset=utf-8"}),
        "sse": lambda mark: sse(steps(mark)),
        "sync-sse": lambda mark: sse(sync_steps(mark)),
        "hand": lambda mark: Response(
            steps(mark, "data: {}\\n\\n".format), headers={"content-type": "text/event-stream"}
        ),
        "dicts": lambda mark: sse(steps(mark, lambda word: {"word": word})),
    }

    async def GET(req):
        return MAKE[req.params["kind"]](req.query.get("mark"))
"""
ROUTES = {
    "steps/[kind]": STEPS,
    "handlers/async": "async def GET():\n    yield 'a'\n    yield 'b'\n",
    "handlers/sync": "def GET(req):\n    yield 'a'\n    yield 'b'\n",
    "fails/[kind]/[when]": """
        from lampyr import Response, sse, ui_messages

        async def parts(when):
            if when == "before":
                raise RuntimeError("secret words")
            yield "first"
            raise RuntimeError("secret words")

        def sync_parts(when):
            if when == "before":
                raise RuntimeError("secret words")
            yield "first"
            raise RuntimeError("secret words")

        async def nonsense(when):
            if when == "after":
                yield "first"
            yield 7

        MAKE = {
            "async": parts,
            "sync": sync_parts,
            "nonsense": nonsense,
            "sse": lambda when: sse(parts(when)),
            "sync-sse": lambda when: sse(sync_parts(when)),
            "ui": lambda when: ui_messages(parts(when)),
            "hand": lambda when: Response(parts(when), headers={"content-type": "text/event-stream"}),
            "sized": lambda when: Response(parts(when), headers={"content-length": "100"}),
        }

        async def GET(req):
            return MAKE[req.params["kind"]](req.params["when"])
    """,
    "flood/[kind]": f"""
        import os
        import marks
        from lampyr import Response

        max_duration = 60
        PIECE = b"x" * {PIECE_BYTES}

        def told(mark, pieces):
            yield b"%-32s" % {WHO}.encode()
            for number in range(pieces):
                marks.reach(mark, number)
                yield PIECE

        async def told_async(mark, pieces):
            for piece in told(mark, pieces):
                yield piece

        async def GET(req):
            make = told if req.params["kind"] == "sync" else told_async
            parts = make(req.query.get("mark"), int(req.query.get("pieces")))
            return Response(parts, headers={{"content-type": "application/octet-stream"}})
    """,
    "quiet/[kind]": """
        import marks
        from lampyr import Response, sse

        async def late(mark):
            await marks.gate(f"{mark}-first")
            yield "a"
            await marks.gate(f"{mark}-second")
            yield "b"

        def late_sync(mark):
            marks.wait(f"{mark}-first")
            yield "a"
            marks.wait(f"{mark}-second")
            yield "b"

        MAKE = {"async": lambda mark: sse(late(mark)), "sync": lambda mark: sse(late_sync(mark)), "plain": late}

        async def GET(req):
            return MAKE[req.params["kind"]](req.query.get("mark"))
    """,
}


def _decoder(coding: str | None) -> Callable[[bytes], bytes]:
    if coding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
    if coding == "br":
        return brotli.Decompressor().process
    return bytes


@pytest.mark.parametrize("accept", [None, "gzip", "br"])
@pytest.mark.parametrize(
    ("kind", "pattern", "compressed"),
    [
        ("async", b"%b", True),
        ("sync", b"%b", True),
        ("bytes", b"%b", False),
        ("sync-bytes", b"%b", False),
        ("response", b"%b", True),
        ("sse", b"data: %b\n\n", False),
        ("sync-sse", b"data: %b\n\n", False),
        ("hand", b"data: %b\n\n", False),
        ("dicts", b'data: {"word":"%b"}\n\n', False),
    ],
)
def test_one_chunk_out_for_each_yield(
    place: Place, mark: str, kind: str, pattern: bytes, compressed: bool, accept: str | None
) -> None:
    """The next one is yielded only when the one before has been read, also through compression."""
    coding = accept if compressed else None
    decode = _decoder(coding)
    with place.open(f"/steps/{kind}?mark={mark}", {"Accept-Encoding": accept} if accept else {}) as line:
        for number, word in enumerate(WORDS):
            place.let(f"{mark}-{number}")
            if number == 0:
                reply = line.head()
                assert (reply.status, reply["content-encoding"]) == (200, coding)
            assert decode(line.chunk()) == pattern % word
        assert line.rest(reply).whole and decode(reply.body or b"") == b""


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_handler_may_be_a_generator_itself(place: Place, kind: str) -> None:
    reply = place.ask(f"/handlers/{kind}")
    assert (reply.chunks, reply["content-type"]) == ([b"a", b"b"], "text/plain;charset=UTF-8")


@pytest.mark.parametrize("kind", ["async", "sync", "nonsense", "sse", "sync-sse", "ui", "hand", "sized"])
def test_failing_before_the_first_byte_is_a_500(place: Place, kind: str) -> None:
    reply = place.ask(f"/fails/{kind}/before")
    assert (reply.status, reply.error) == (500, "FUNCTION_INVOCATION_FAILED")
    assert (b"secret words" in reply.body) == (place.command == "dev" and kind != "nonsense")
    place.server.log(rf"{reply['x-lampyr-id']} \| .*(secret words|yielded int)")


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize(
    ("kind", "events"),
    [("async", 0), ("sync", 0), ("nonsense", 0), ("sse", 1), ("sync-sse", 1), ("ui", 1), ("hand", 1), ("sized", 0)],
)
def test_failing_after_the_first_byte_cuts_the_connection(
    place: Place, kind: str, events: int, coding: str | None
) -> None:
    """What was yielded is delivered, an event stream says that it failed, and no final chunk makes it look whole."""
    with place.open(f"/fails/{kind}/after", {"Accept-Encoding": coding} if coding else {}) as line:
        reply = line.head()
        decode = _decoder(reply["content-encoding"])
        line.rest(reply)
        body = decode(b"".join(reply.chunks))
        assert reply.status == 200 and b"first" in body and b"secret" not in body
        assert body.count(b"event: error\n") == events
        assert not reply.whole
        assert line.ended()


# --- a reader that does not read


def _rss_bytes(pid: int) -> int:
    found = re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def _yielded(mark: Path) -> int:
    return int(mark.read_bytes() or b"0") if mark.exists() else 0


def _standstill(mark: Path) -> int:
    """How many pieces were yielded once their number stays the same for half a second."""
    seen: list[int] = []

    def stands() -> bool:
        seen.append(_yielded(mark))
        time.sleep(0.05)
        return seen[-1] > 0 and len(seen) > 10 and seen[-10] == seen[-1]

    until(stands, "the generator to stop", context=seen)
    return seen[-1]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_reader_that_does_not_read_stops_the_generator(place: Place, mark: str, kind: str) -> None:
    gateway = place.server.find("lampyr.gateway").pid
    place.ask(f"/flood/{kind}?mark={mark}-warm&pieces=60")  # buffers that stay are there after the first time
    with place.line(receive_bytes=PIECE_BYTES) as line:
        before = _rss_bytes(gateway)
        line.ask("GET", f"/{place.runtime}/flood/{kind}?mark={mark}&pieces={PIECES}")
        reply = line.head()
        process = place.server.who_is(line.chunk().decode().strip())
        assert process is not None
        instance = process.pid
        own_before = _rss_bytes(instance)
        stopped_at = _standstill(place.marks / mark)
        assert stopped_at * PIECE_BYTES < ON_ITS_WAY_BYTES
        assert _rss_bytes(gateway) - before < GROWTH_BYTES
        assert _rss_bytes(instance) - own_before < GROWTH_BYTES
        line.rest(reply)  # reads on, and so does the generator
        assert reply.whole and len(reply.body) == PIECES * PIECE_BYTES
    assert _yielded(place.marks / mark) == PIECES - 1


# --- silence


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_comments_break_the_silence_of_an_event_stream(place: Place, mark: str, kind: str) -> None:
    """Before the first event and between events (`stream_keepalive = 1` here), and in no other stream."""
    plain = place.open(f"/quiet/plain?mark={mark}-plain")
    with plain, place.open(f"/quiet/{kind}?mark={mark}") as line:
        reply = line.head()
        assert (reply.status, reply["content-type"]) == (200, "text/event-stream")
        assert line.chunk() == b": keep-alive\n\n"
        place.let(f"{mark}-first")
        assert _skip_comments(line) == b"data: a\n\n"
        assert line.chunk() == b": keep-alive\n\n"
        place.let(f"{mark}-second")
        assert _skip_comments(line) == b"data: b\n\n"
        assert line.rest(reply).whole
        assert not select.select([plain.sock], [], [], 0)[0]
        for number in ("first", "second"):
            place.let(f"{mark}-plain-{number}")
        assert plain.reply().body == b"ab"


def _skip_comments(line: Line) -> bytes:
    while (chunk := line.chunk()).startswith(b":"):
        pass
    return chunk


def test_events_leave_at_once_and_alone(place: Place, mark: str) -> None:
    """Nagle and delayed acknowledgements must not hold an event: the socket is readable before the next is made."""
    with place.open(f"/steps/sse?mark={mark}") as line:
        line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        place.let(f"{mark}-0")
        reply = line.head()
        assert line.chunk() == b"data: one\n\n"
        place.let(f"{mark}-1")
        assert line.chunk() == "data: zwei €\n\n".encode()
        place.let(f"{mark}-2")
        assert line.rest(reply).whole

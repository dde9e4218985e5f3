"""Tokens read off an answer, however it is cut into pieces."""

from __future__ import annotations

import json

import pytest

from lampyr.broker.usage import Trim, Usage

TOLD = {"id": "c", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Fire"}}], "usage": None}
STREAM = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in (CHUNK, CHUNK, TOLD)) + b"data: [DONE]\n\n"


def read(body: bytes, kind: bytes, size: int) -> Usage:
    usage = Usage(kind)
    for at in range(0, len(body), size):
        usage.feed(body[at : at + size])
    usage.end()
    return usage


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("kind", "body", "tokens"),
    [
        (b"application/json", json.dumps(TOLD).encode(), (7, 3)),
        (b"application/json", b'{"usage": {"prompt_tokens": 5, "total_tokens": 5}}', (5, 0)),
        (b"application/json", b'{"usage": "none"}', (0, 0)),
        (b"text/event-stream; charset=utf-8", STREAM, (7, 3)),
        (b"text/event-stream", b'data: {"response": {"usage": {"input_tokens": 4, "output_tokens": 2}}}\n\n', (4, 2)),
        (
            b"text/event-stream",
            b'data: {"message": {"usage": {"input_tokens": 1, "cache_read_input_tokens": 9, "output_tokens": 1}}}\n\n'
            b'data: {"usage": {"output_tokens": 5}}\n\n',
            (10, 5),
        ),
    ],
)
def test_tokens(kind: bytes, body: bytes, tokens: tuple[int, int], size: int) -> None:
    assert read(body, kind, size).estimate(400) == (*tokens, False)


def test_a_stream_that_does_not_say_it_is_guessed() -> None:
    usage = Usage(b"text/event-stream")
    usage.feed(STREAM[: STREAM.index(b"data", 5)])
    assert usage.estimate(400) == (100, 1, True)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_only_the_event_with_the_tokens_is_taken_out(size: int, end: bytes) -> None:
    trim, stream = Trim(), STREAM.replace(b"\n\n", end)
    out = b"".join(trim.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + trim.end()
    assert out == stream.replace(b"data: %b%b" % (json.dumps(TOLD).encode(), end), b"")

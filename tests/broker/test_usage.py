"""Tokens read off an answer, however it is cut into pieces."""

from __future__ import annotations

import json

import pytest

from lampyr.broker.usage import Tokens, Trim, Usage

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
    found = read(body, kind, size).tokens(100)
    assert (found.read, found.written, found.guessed) == (*tokens, False)


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/json", b'{"model": "m-1", "usage": {}}'),
        (b"text/event-stream", b'data: {"model": "m-1", "choices": []}\n\ndata: {"model": "m-2"}\n\n'),
        (b"text/event-stream", b'event: x\ndata: {"message": {"model": "m-1"}}\n\n'),
    ],
)
def test_who_says_that_it_answers(kind: bytes, body: bytes, size: int) -> None:
    named, other = Usage(kind, named=True), Usage(kind)
    for one in (named, other):
        for at in range(0, len(body), size):
            one.feed(body[at : at + size])
        one.end()
    assert (named.model, other.model) == ("m-1", "")


def test_a_stream_that_does_not_say_it_is_guessed() -> None:
    usage = Usage(b"text/event-stream")
    usage.feed(STREAM[: STREAM.index(b"data", 5)])
    assert usage.tokens(100) == Tokens(100, 1, guessed=True)


def test_tokens_that_a_cache_has_read_or_written() -> None:
    """OpenAI counts them within the prompt, Anthropic beside it."""
    openai = (
        b'{"usage": {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 80}}}'
    )
    assert read(openai, b"application/json", 7).tokens(1) == Tokens(100, 5, cached=80)
    responses = b'{"usage": {"input_tokens": 100, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 80}}}'
    assert read(responses, b"application/json", 7).tokens(1) == Tokens(100, 5, cached=80)
    anthropic = (
        b'{"usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 80, '
        b'"cache_creation_input_tokens": 7}}'
    )
    assert read(anthropic, b"application/json", 7).tokens(1) == Tokens(97, 5, cached=80, written_to_cache=7)


def test_an_answer_that_was_cut_off_is_guessed() -> None:
    begun = Usage(b"text/event-stream")
    begun.feed(b'data: {"message": {"usage": {"input_tokens": 11, "output_tokens": 1}}}\n\n')
    begun.feed(b'data: {"type": "content_block_delta", "delta": {"text": "a"}}\n\n' * 3)
    assert begun.tokens(100) == Tokens(11, 3, guessed=True)
    whole = Usage(b"application/json")
    whole.feed(b'{"choices"')
    assert whole.tokens(100) == Tokens(100, 0, guessed=True)


@pytest.mark.parametrize(
    "usage", ['{"prompt_tokens": -1}', '{"prompt_tokens": true}', '{"prompt_tokens": 1e300}', "[1]"]
)
def test_what_is_no_count_is_none(usage: str) -> None:
    assert read(b'{"usage": %b}' % usage.encode(), b"application/json", 7).tokens(5) == Tokens(0, 0)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_only_the_event_with_the_tokens_is_taken_out(size: int, end: bytes) -> None:
    trim, stream = Trim(), STREAM.replace(b"\n\n", end)
    out = b"".join(trim.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + trim.end()
    assert out == stream.replace(b"data: %b%b" % (json.dumps(TOLD).encode(), end), b"")

"""The strict reader beside another one: what it accepts, h11 reads as the same request."""

from __future__ import annotations

from itertools import product

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.gateway import head
from lampyr.gateway.chunks import Chunks

LINES = (b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"POST /a HTTP/1.0", b"OPTIONS * HTTP/1.1", b"GET  / HTTP/1.1")
HOSTS = (
    b"Host: x",
    b"host:x:80 ",
    b"Host: [::1]",
    b"Host: x, y",
    b"Host : x",
    b"X: y\r\n Host: x",
    b"Host: x\r\nHost: x",
)
BODIES = (
    (b"", b""),
    *[(b"Content-Length: " + length, b"hello") for length in (b"5", b"05", b" 5\t", b"+5", b"5,5", b"0x5", b"", b"-5")],
    (b"Content-Length: 5\r\nContent-Length: 5", b"hello"),
    *[
        (b"Transfer-Encoding: " + coding, b"5;a=b\r\nhello\r\n0\r\nt: u\r\n\r\n")
        for coding in (
            b"chunked",
            b"\tchunked",
            b"chunked, chunked",
            b"identity",
            b"xchunked",
            b"chunked\x0b",
        )
    ],
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"5\r\nhello\r\n0\r\n\r\n"),
)
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"


def ours(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bytes] | None:
    """Method, target, headers, body, and what lies behind; None where the request is refused."""
    end = data.find(b"\r\n\r\n")
    try:
        request = head.read(data, end)
        rest = data[end + 4 :]
        if request.length is None:
            chunks = Chunks()
            body, rest = chunks.feed(rest)
            assert chunks.done
        else:
            body, rest = rest[: request.length], rest[request.length :]
    except head.Refusal:
        return None
    return request.method.encode(), request.target.encode(), request.headers, body, rest


def other(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += event.data
    return request.method, request.target, list(request.headers), body, connection.trailing_data[0]


@pytest.mark.parametrize("line", LINES)
def test_what_is_accepted_means_the_same_to_another_reader(line: bytes) -> None:
    accepted = 0
    for host, (framing, body) in product(HOSTS, BODIES):
        data = b"\r\n".join([line, host, *([framing] if framing else []), b"", body]) + BEHIND
        if (read := ours(data)) is not None:
            accepted += 1
            assert read == other(data), data
    assert accepted > 0 or line == LINES[-1]


PIECES = (
    *(b"GET", b"POST", b" ", b"/", b"/a", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b":", b": ", b"\t", b"\0"),
    *(
        b"Host",
        b"x",
        b"Content-Length",
        b"3",
        b"Transfer-Encoding",
        b"chunked",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"\xff",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_whatever_is_put_into_a_request(piece: bytes) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + piece + b"\r\n\r\nabc" + BEHIND
    try:
        read = ours(data)
    except AssertionError:
        return  # chunks that have not ended
    if read is not None and len(read[3]) == int(dict(read[2]).get(b"content-length", len(read[3]))):
        assert read == other(data), data

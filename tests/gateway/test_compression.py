"""Which responses are compressed, with what, and that every chunk can be read the moment it was written."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.gateway import compression
from lampyr.gateway.compression import Headers, choose, compress, preferred

JSON: Headers = [(b"content-type", b"application/json")]
BODY = b'{"word": "lampyr"},' * 100


def reader(name: bytes) -> Callable[[bytes], bytes]:
    """What a client decodes with."""
    if name == b"br":
        return brotli.Decompressor().process
    return zlib.decompressobj(wbits=31).decompress


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        (b"gzip", b"gzip"),
        (b"GZip", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"br", b"br"),
        (b"gzip, deflate, br, zstd", b"br"),
        (b"br;q=0.5, gzip;q=0.8", b"gzip"),
        (b"br;q=0.8 , gzip ; q=0.8", b"br"),
        (b"gzip;q=0", None),
        (b"gzip;q=0.000, br;q=0.0", None),
        (b"gzip;q=0.001", b"gzip"),
        (b"*", b"br"),
        (b"*;q=0", None),
        (b"br;q=0, *", b"gzip"),
        (b"gzip, *;q=0", b"gzip"),
        (b"identity", None),
        (b"identity;q=1, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", b"gzip"),
        (b"gzip, identity", b"gzip"),
        (b"identity;q=0, *", b"br"),
        (b"deflate, zstd", None),
        (b"", None),
        (b",,, gzip ,,", b"gzip"),
        (b"gzip;q=2", None),
        (b"gzip;q=nan", None),
        (b"gzip;q=-1, br;q=1.0", b"br"),
        (b"gzip;level=9", None),
        (b"gzipped, brotli", None),
    ],
)
def test_the_coding_the_client_prefers(accept_encoding: bytes, coding: bytes | None) -> None:
    assert preferred(accept_encoding) == coding


@given(st.binary(max_size=80))
def test_no_header_is_too_strange(accept_encoding: bytes) -> None:
    assert preferred(accept_encoding) in (None, b"br", b"gzip")


@pytest.mark.parametrize(
    ("content_type", "compressed"),
    [
        (b"text/plain;charset=UTF-8", True),
        (b"TEXT/HTML", True),
        (b"text/event-stream", True),
        (b"application/json", True),
        (b"application/json; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"application/vnd.api+json", True),
        (b"application/javascript", True),
        (b"application/xml", True),
        (b"application/atom+xml", True),
        (b"application/x-ndjson", True),
        (b"image/svg+xml", True),
        (b"application/wasm", True),
        (b"image/png", False),
        (b"video/mp4", False),
        (b"application/octet-stream", False),
        (b"application/zip", False),
        (b"application/jsonish", False),
        (b"font/woff2", False),
        (b"multipart/form-data; boundary=text/plain", False),
    ],
)
def test_content_types(content_type: bytes, compressed: bool) -> None:
    assert (choose(b"gzip", 200, [(b"content-type", content_type)]) is not None) == compressed


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (200, (b"content-encoding", b"gzip")),
        (200, (b"content-encoding", b"identity")),
        (200, (b"cache-control", b"no-transform")),
        (200, (b"cache-control", b"no-cache, no-transform")),
        (200, (b"cache-control", b"No-Transform,max-age=1")),
        (200, (b"content-range", b"bytes 0-1/9")),
        (200, (b"content-digest", b"sha-256=:AAAA:")),
        (206, (b"x-any", b"thing")),
        (204, (b"x-any", b"thing")),
        (205, (b"x-any", b"thing")),
        (304, (b"x-any", b"thing")),
    ],
)
def test_what_goes_as_it_is(status: int, header: tuple[bytes, bytes]) -> None:
    assert choose(b"gzip, br", status, [*JSON, header]) is None


@pytest.mark.parametrize("accept_encoding", [None, b"", b"identity"])
def test_a_client_that_does_not_ask(accept_encoding: bytes | None) -> None:
    headers = list(JSON)
    assert compress(accept_encoding, 200, headers, BODY) == BODY
    assert headers == JSON, "no header comes as a surprise"


def test_a_body_without_a_type_goes_as_it_is() -> None:
    assert choose(b"gzip", 200, []) is None


@pytest.mark.parametrize("status", [200, 201, 404, 500])
@pytest.mark.parametrize("name", [b"gzip", b"br"])
def test_whole_bodies(name: bytes, status: int) -> None:
    headers = [*JSON, (b"content-length", b"1900")]
    body = compress(name, status, headers, BODY)
    assert len(body) < len(BODY) / 4
    assert reader(name)(body) == BODY
    assert headers == [*JSON, (b"content-encoding", name), (b"vary", b"accept-encoding")]


def test_small_bodies_go_as_they_are() -> None:
    small = b"x" * (compression.WORTH_BYTES - 1)
    assert compress(b"gzip", 200, list(JSON), small) is small
    assert compress(b"gzip", 200, list(JSON), small + b"x") != small + b"x"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([(b"etag", b'"v1"')], [(b"etag", b'W/"v1"')]),
        ([(b"etag", b'W/"v1"')], [(b"etag", b'W/"v1"')]),
        ([(b"vary", b"cookie")], [(b"vary", b"cookie"), (b"vary", b"accept-encoding")]),
        ([(b"vary", b"Accept-Encoding, cookie")], [(b"vary", b"Accept-Encoding, cookie")]),
        ([(b"vary", b"*")], [(b"vary", b"*")]),
    ],
)
def test_headers_of_a_compressed_body(before: Headers, after: Headers) -> None:
    headers = [*JSON, *before]
    encoder = choose(b"gzip", 200, headers)
    assert encoder is not None
    encoder.add_headers(headers)
    shown = [pair for pair in headers if pair[0] in (b"etag", b"vary")]
    expected = after if any(name == b"vary" for name, _ in after) else [*after, (b"vary", b"accept-encoding")]
    assert shown == expected


@pytest.mark.parametrize("name", [b"gzip", b"br"])
@given(chunks=st.lists(st.binary(max_size=300), max_size=8))
def test_every_chunk_can_be_read_at_once(name: bytes, chunks: list[bytes]) -> None:
    encoder = choose(name, 200, list(JSON))
    assert encoder is not None
    read = reader(name)
    for chunk in chunks:
        sent = encoder.feed(chunk)
        assert (read(sent) if sent else b"") == chunk
    assert read(encoder.end()) == b""


@pytest.mark.parametrize("name", [b"gzip", b"br"])
def test_a_stream_is_complete_for_a_strict_client(name: bytes) -> None:
    encoder = choose(name, 200, list(JSON))
    assert encoder is not None
    body = encoder.feed(b"one ") + encoder.feed(b"two") + encoder.end()
    assert (brotli.decompress(body) if name == b"br" else zlib.decompress(body, wbits=31)) == b"one two"


def test_brotli_is_loaded_by_its_first_use_only() -> None:
    code = "import sys, lampyr.gateway.compression; sys.exit('brotli' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

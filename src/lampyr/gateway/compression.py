"""Content codings for responses that ask for it and gain by it: gzip (RFC 1952) and br (RFC 7932).

A stream's every piece is flushed, so that compression never delays a chunk. What a proxy must leave alone stays as it
is: server-sent events of ours say `no-transform`. Responses that were not compressed get no `vary`: whatever the next
client accepts, it can read them.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]

# Below this a whole body is not worth it: it fits in one packet as it is.
WORTH_BYTES = 1024
# Measured on JSON and prose: higher levels cost twice the time for 3 % of the size.
_GZIP_LEVEL = 4
_BROTLI_QUALITY = 4
_BROTLI_WINDOW = 18  # 2**18 bytes; the default of 2**22 costs each open stream several MB

_NO_BODY = frozenset({204, 205, 304})
_COMPRESSIBLE = re.compile(
    rb"text/|[\w.-]+/[\w.+-]+\+(?:json|xml|text)\b"
    rb"|application/(?:json|javascript|x-javascript|ecmascript|xml|xhtml|x-ndjson|ndjson|jsonl|jsonlines|json-seq"
    rb"|x-www-form-urlencoded|graphql|graphql-response|sql|toml|yaml|x-yaml|rtf|wasm|x-sh|manifest)\b"
    rb"|font/(?:ttf|otf|collection)\b|image/(?:svg|bmp|x-icon|vnd\.microsoft\.icon)\b",
    re.IGNORECASE,
)
_NO_TRANSFORM = re.compile(rb"(?:^|,)\s*no-transform\s*(?:,|$)", re.IGNORECASE)
# The handler has encoded the body itself, has cut it, or vouches for its bytes.
_FIXED = frozenset(
    {b"content-encoding", b"content-range", b"content-digest", b"repr-digest", b"digest", b"content-md5"}
)
_ACCEPTED = re.compile(
    rb"\s*([!#$%&'*+.^_`|~\w-]+)\s*(?:;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?", re.IGNORECASE
)


class Encoder:
    """Compresses one body. `name` is its content coding, as in the header."""

    name: bytes

    def feed(self, data: bytes) -> bytes:
        """`data` compressed, complete: the client can read all of it at once."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What ends the body."""
        raise NotImplementedError

    def whole(self, data: bytes) -> bytes:
        """A whole body, without the flush after each piece."""
        raise NotImplementedError

    def add_headers(self, headers: Headers) -> None:
        """Make `headers` those of the compressed body: another length, and equal only in meaning (RFC 9110 8.8.1)."""
        varies = False
        for index in range(len(headers) - 1, -1, -1):
            name, value = headers[index]
            if name == b"content-length":
                del headers[index]
            elif name == b"etag" and value.startswith(b'"'):
                headers[index] = (name, b"W/" + value)
            elif name == b"vary":
                fields = {field.strip().lower() for field in value.split(b",")}
                varies = varies or not fields.isdisjoint({b"*", b"accept-encoding"})
        headers.append((b"content-encoding", self.name))
        if not varies:
            headers.append((b"vary", b"accept-encoding"))


class Gzip(Encoder):
    name = b"gzip"
    wbits = 16 + zlib.MAX_WBITS

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, wbits=self.wbits)

    def feed(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH) if data else b""

    def end(self) -> bytes:
        return self._stream.flush()

    def whole(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush()


class Deflate(Gzip):
    """For bodies that came with it: nobody is sent it otherwise."""

    name = b"deflate"
    wbits = zlib.MAX_WBITS


class Brotli(Encoder):
    name = b"br"

    def __init__(self) -> None:
        import brotli  # 5 ms that only its first use pays

        self._stream = brotli.Compressor(quality=_BROTLI_QUALITY, lgwin=_BROTLI_WINDOW)

    def feed(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data) + self._stream.flush()) if data else b""

    def end(self) -> bytes:
        return bytes(self._stream.finish())

    def whole(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data) + self._stream.finish())


_ENCODERS: dict[bytes, type[Encoder]] = {b"br": Brotli, b"gzip": Gzip}


def choose(accept_encoding: bytes | None, status: int, headers: Headers) -> Encoder | None:
    """The encoder for a response, or None where it must, or should, go as it is."""
    if not accept_encoding or status < 200 or status in _NO_BODY or status == 206:
        return None
    compressible = False
    for name, value in headers:
        if name == b"content-type":
            compressible = _COMPRESSIBLE.match(value) is not None
        elif name in _FIXED or (name == b"cache-control" and _NO_TRANSFORM.search(value)):
            return None
    if not compressible:
        return None
    coding = preferred(accept_encoding)
    return _ENCODERS[coding]() if coding else None


def compress(accept_encoding: bytes | None, status: int, headers: Headers, body: bytes) -> bytes:
    """A whole body, compressed where that is wanted and worth it; `headers` are changed to match."""
    encoder = choose(accept_encoding, status, headers) if len(body) >= WORTH_BYTES else None
    if encoder is None:
        return body
    encoder.add_headers(headers)
    return encoder.whole(body)


@lru_cache(maxsize=256)
def preferred(accept_encoding: bytes) -> bytes | None:
    """The coding the client likes best, br before gzip where it likes both; None for the body as it is.

    RFC 9110 12.5.3. What cannot be read in the header is as if it were not there.
    """
    weights: dict[bytes, float] = {}
    for item in accept_encoding.split(b",")[:32]:
        if read := _ACCEPTED.fullmatch(item):
            weights[read[1].lower().removeprefix(b"x-")] = float(read[2]) if read[2] else 1.0
    others = weights.get(b"*", 0.0)
    best, most = None, weights.get(b"identity", 0.0)
    for coding in _ENCODERS:
        weight = weights.get(coding, others)
        if weight > 0 and (weight > most or (weight == most and best is None)):
            best, most = coding, weight
    return best

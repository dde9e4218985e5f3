"""Bodies that a function has compressed itself: opened, masked, and compressed again where there was a secret."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

from lampyr.core.masking import Masker, MaskStream
from lampyr.gateway.compression import Brotli, Deflate, Encoder, Gzip, Headers

# Of a whole body so much is looked at, opened (50 ms at most); a piece of a stream may not grow beyond it.
MOST_BYTES = 8 * 1024 * 1024
_AT_ONCE_BYTES = 64 * 1024


class Opener:
    """Opens one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is in `data`, in small pieces. Raises ValueError where it is not compressed, or not in this way."""
        raise NotImplementedError


class _Inflate(Opener):
    """gzip, of one or several members, and deflate, with the zlib header it ought to have or without."""

    def __init__(self, wrapped: bool) -> None:
        self._wrapped = wrapped
        self._stream: zlib._Decompress | None = None
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while data and not self._over:
                stream = self._stream = self._stream or zlib.decompressobj(self._window(data))
                piece = stream.decompress(data, _AT_ONCE_BYTES)
                while len(piece) == _AT_ONCE_BYTES:
                    yield piece
                    piece = stream.decompress(stream.unconsumed_tail, _AT_ONCE_BYTES)
                if piece:
                    yield piece
                data = stream.unused_data
                if stream.eof:
                    self._stream = None
                    self._over = not data.startswith(b"\x1f\x8b")  # what follows a body is nobody's
        except zlib.error as error:
            raise ValueError(str(error)) from None

    def _window(self, data: bytes) -> int:
        if self._wrapped:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 15 == 8 else -zlib.MAX_WBITS


class _Unbrotli(Opener):
    def __init__(self) -> None:
        import brotli  # 5 ms that only its first use pays

        self._stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        if stream.is_finished():
            return
        try:
            while piece := stream.process(data, output_buffer_limit=_AT_ONCE_BYTES):
                yield piece
                data = b""
        except Exception as error:  # brotli.error, a class that only the module just imported has
            raise ValueError(str(error)) from None


class OpenedStream:
    """What is in one such body on its way, masked: what MaskStream is to others. It has to be compressed again."""

    def __init__(self, opener: Opener, masking: MaskStream) -> None:
        self._opener = opener
        self._masking = masking
        self._begun = False
        self._plain = False  # whatever its headers say

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that `data` has come. Raises ValueError for what cannot be opened any further."""
        if self._plain:
            return self._masking.feed(data)
        out, opened_bytes = [], 0
        try:
            for piece in self._opener.feed(data):
                self._begun = True
                opened_bytes += len(piece)
                if opened_bytes > MOST_BYTES:
                    raise ValueError(f"a piece of it has more than {MOST_BYTES} bytes once it is opened")
                out.append(self._masking.feed(piece))
        except ValueError:
            if self._begun:
                raise
            self._plain = True
            return self._masking.feed(data)
        return b"".join(out)

    def end(self) -> bytes:
        """The rest."""
        return self._masking.end()


def stream(status: int, headers: Headers, masking: MaskStream) -> tuple[OpenedStream, Encoder] | None:
    """What masks a streamed body that comes compressed, and what compresses it again; None for any other."""
    if status == 206:  # a part of one cannot be opened
        return None
    for name, value in headers:
        if name == b"content-encoding" and (both := _coding(value)) is not None:
            opener, encoder = both
            return OpenedStream(opener, masking), encoder
    return None


def mask(coding: bytes, body: bytes, masker: Masker) -> bytes:
    """A whole body, masked inside; the same object where there is no secret in it, or where it cannot be opened."""
    both = _coding(coding)
    if both is None:
        return masker.mask(body)
    opener, encoder = both
    pieces = opener.feed(body)
    try:
        opened, opened_bytes = [], 0
        for piece in pieces:
            opened.append(piece)
            opened_bytes += len(piece)
            if opened_bytes >= MOST_BYTES:
                break
        plain = b"".join(opened)
        masked = masker.mask(plain)
        return body if masked is plain else encoder.whole(b"".join(chain([masked], pieces)))
    except ValueError:
        return body


def _coding(value: bytes) -> tuple[Opener, Encoder] | None:
    """What opens and closes a body of this content coding; None for one that we do not know."""
    coding = value.strip().lower().removeprefix(b"x-")
    if coding == b"gzip":
        return _Inflate(wrapped=True), Gzip()
    if coding == b"deflate":
        return _Inflate(wrapped=False), Deflate()
    return (_Unbrotli(), Brotli()) if coding == b"br" else None

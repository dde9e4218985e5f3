"""Bodies that functions have compressed themselves are masked inside, whole and in pieces."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest

from lampyr.core.masking import Masker
from lampyr.gateway import packed
from lampyr.gateway.reply import Stream

SECRET = "correct-horse-battery"
MASKER = Masker([SECRET])


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def deflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return zlib.decompress(data, -zlib.MAX_WBITS)


def opened(coding: bytes) -> Stream:
    both = packed.stream(200, [(b"content-encoding", coding)], MASKER.stream())
    assert both is not None
    return Stream(*both)


Pack = Callable[[bytes], bytes]
CODINGS: dict[str, tuple[bytes, Pack, Pack]] = {
    "gzip": (b"gzip", gzip.compress, gzip.decompress),
    "x-gzip": (b"X-Gzip", gzip.compress, gzip.decompress),
    "br": (b"br", brotli.compress, brotli.decompress),
    "deflate": (b"deflate", zlib.compress, deflated),
    "raw deflate": (b"deflate", raw_deflate, deflated),
}
coded = pytest.mark.parametrize(("coding", "pack", "open"), CODINGS.values(), ids=CODINGS)


@coded
def test_a_secret_in_a_whole_body(coding: bytes, pack: Pack, open: Pack) -> None:
    body = pack(b"y" * 100_000 + SECRET.encode() + b"z" * 100_000)
    assert open(packed.mask(coding, body, MASKER)) == b"y" * 100_000 + b"***" + b"z" * 100_000


@coded
def test_a_whole_body_without_one_is_the_very_same(coding: bytes, pack: Pack, open: Pack) -> None:
    body = pack(b"no secret here " * 10_000)
    assert packed.mask(coding, body, MASKER) is body


@coded
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_secret_in_a_stream(coding: bytes, pack: Pack, open: Pack, size: int) -> None:
    body = pack(b"begin " + SECRET.encode() + b" end")
    stream = opened(coding)
    out = b"".join([stream.feed(body[at : at + size]) for at in range(0, len(body), size)]) + stream.end()
    # Two letters of what is written letter by letter are seen, as in any stream.
    assert open(out) in (b"begin *** end", b"begin co*** end")
    assert size == 1 or b"co" not in open(out)


def test_what_a_stream_has_flushed_can_be_read_at_once() -> None:
    packer, reader = zlib.compressobj(wbits=31), zlib.decompressobj(31)
    stream = opened(b"gzip")
    for number in range(5):
        event = b"data: %d\n\n" % number
        assert reader.decompress(stream.feed(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH))) == event


def test_gzip_of_several_members_and_something_behind_it() -> None:
    body = gzip.compress(b"one " + SECRET[:9].encode()) + gzip.compress(SECRET[9:].encode() + b" two")
    assert gzip.decompress(packed.mask(b"gzip", body, MASKER)) == b"one *** two"
    body = gzip.compress(SECRET.encode()) + b"garbage"
    assert gzip.decompress(packed.mask(b"gzip", body, MASKER)) == b"***"


def test_other_codings_and_what_is_none_are_masked_as_they_are() -> None:
    assert packed.mask(b"zstd", b"a " + SECRET.encode(), MASKER) == b"a ***"
    assert packed.mask(b"gzip", b"not gzip", MASKER) == b"not gzip"
    stream = opened(b"gzip")
    assert gzip.decompress(stream.feed(b"not gzip, " + SECRET.encode()) + stream.end()) == b"not gzip, ***"
    assert packed.stream(200, [(b"content-encoding", b"identity")], MASKER.stream()) is None
    assert packed.stream(206, [(b"content-encoding", b"gzip")], MASKER.stream()) is None


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_bomb_costs_no_more_than_its_limit(coding: str) -> None:
    name, pack, _ = CODINGS[coding]
    bomb = pack(b"\0" * (packed.MOST_BYTES * 4))
    assert packed.mask(name, bomb, MASKER) is bomb
    stream = opened(name)
    with pytest.raises(ValueError, match="bytes once it is opened"):
        stream.feed(bomb)

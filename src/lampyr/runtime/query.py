"""`application/x-www-form-urlencoded` as the WHATWG URL standard reads it (section 5.1): queries and plain forms."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from lampyr.runtime.multimap import Multimap


def parse_urlencoded(raw: bytes) -> list[tuple[str, str]]:
    """The pairs of `raw`: only `&` separates, `+` is a space, bad escapes stay, invalid UTF-8 becomes U+FFFD."""
    pairs = []
    for piece in raw.split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            pairs.append((_decode(name), _decode(value)))
    return pairs


def _decode(raw: bytes) -> str:
    raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")


class Query(Multimap[str]):
    """The query of a request: `get`, `getall`, `items`, `in`, `len`."""

    __slots__ = ()

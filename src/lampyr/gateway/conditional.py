"""Conditional requests and byte ranges (RFC 9110 13 and 14), as pure decisions about a file's validators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Asked = Mapping[bytes, bytes]
Range = tuple[int, int]

UNSATISFIABLE: Range = (-1, -1)
# A file written again within the same second keeps its Last-Modified, which then does not name its bytes (8.8.2.2).
STRONG_AFTER_S = 1

_ETAG = re.compile(rb'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_RANGE = re.compile(rb"(\d*)-(\d*)")
_MOST_DIGITS = 18  # no file is longer, and int() refuses numbers without end
_WANTED = frozenset(
    {b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range"}
)


def headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What of a request's headers is decided about here; repeated ones are one list (5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in _WANTED:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def precondition(asked: Asked, etag: bytes, modified_s: int) -> int | None:
    """304 or 412 where the conditions of a GET or HEAD ask for it; None to go on. The order is that of 13.2.2."""
    if b"if-match" in asked:
        if not _names(asked[b"if-match"], etag, strong=True):
            return 412
    elif (limit := _date(asked, b"if-unmodified-since")) is not None and modified_s > limit:
        return 412
    if b"if-none-match" in asked:
        if _names(asked[b"if-none-match"], etag, strong=False):
            return 304
    elif (known := _date(asked, b"if-modified-since")) is not None and modified_s <= known:
        return 304
    return None


def range_holds(asked: Asked, etag: bytes, modified_s: int, now_s: float) -> bool:
    """Whether If-Range, if there is one, still means this file (13.1.5): compared strongly, and exactly."""
    value = asked.get(b"if-range")
    if value is None:
        return True
    if b'"' in value:
        return value == etag
    return _date(asked, b"if-range") == modified_s and now_s - modified_s >= STRONG_AFTER_S


def chosen_range(value: bytes, size: int) -> Range | None:
    """The first byte and the one after the last; None for the whole file, UNSATISFIABLE for a 416.

    A header that is not valid, or that names several ranges which all exist, is as if it were not there (14.2).
    """
    unit, mark, ranges = value.partition(b"=")
    if unit.strip().lower() != b"bytes" or not mark:
        return None
    specs = [spec for spec in (spec.strip(b" \t") for spec in ranges.split(b",")) if spec]
    found: list[Range] = []
    for spec in specs:
        one = _one_range(spec, size)
        if one is None:
            return None
        if one != UNSATISFIABLE:
            found.append(one)
    if not specs or len(found) > 1:
        return None
    return found[0] if found else UNSATISFIABLE


def _one_range(spec: bytes, size: int) -> Range | None:
    read = _RANGE.fullmatch(spec)
    if read is None or spec == b"-":
        return None
    first, last = (_number(digits) if digits else None for digits in read.groups())
    if first is None:
        start, end = max(size - (last or 0), 0), size
    elif last is None:
        start, end = first, size
    elif last < first:
        return None
    else:
        start, end = first, min(last + 1, size)
    return (start, end) if start < end else UNSATISFIABLE


def _number(digits: bytes) -> int:
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _names(value: bytes, etag: bytes, *, strong: bool) -> bool:
    """Whether a list of entity tags, or `*`, names this one (8.8.3.2). Ours is strong."""
    if value.strip() == b"*":
        return True
    at = 0
    while found := _ETAG.match(value, at):
        if found[2] == etag and not (strong and found[1]):
            return True
        at = found.end()
        if at == found.start():
            break
    return False


def _date(asked: Asked, name: bytes) -> int | None:
    """An HTTP date in seconds; None where there is none, or none that can be read (13.1.3: then it is ignored)."""
    value = asked.get(name)
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # asctime-date has no zone and is in GMT (5.6.7)
        date = date.replace(tzinfo=UTC)
    return int((date - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())

"""How deep functions have called one another, and how a connection and a request say so."""

from __future__ import annotations

# What a client calls has depth 0. Loops end here; a chain this long of honest functions has not been seen.
MAX_DEPTH = 16
# Only on requests that a function has made: who sends the headers on that it got is counted behind any proxy too.
HEADER = "x-lampyr-depth"
_DIGITS = 4


def mark(depth: int) -> int:
    """The type of service of a connection made at `depth`: six bits are free (RFC 2474), and all zero says nothing."""
    return min(depth + 1, MAX_DEPTH + 1) << 2


def marked(service: int) -> int | None:
    """The depth that a type of service says, None where it is nobody's mark."""
    depth = (service >> 2) - 1
    return depth if 0 <= depth <= MAX_DEPTH and not service & 3 else None


def told(value: str) -> int:
    """The depth that a header says; what is no number says nothing."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _DIGITS else 0

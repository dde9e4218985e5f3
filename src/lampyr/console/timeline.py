"""The times of an invocation as pieces of a line: queue, init, handler up to the first byte, stream after it."""

from __future__ import annotations

from math import floor, log10
from typing import NamedTuple

from lampyr.ledger.history import Invocation

# The least width of a piece that took any time at all, in parts of the line: it must be seen.
LEAST = 0.004


class Piece(NamedTuple):
    """`start_ms` from the arrival of the request; `at` and `width` are parts of the line."""

    name: str
    start_ms: float
    took_ms: float
    at: float
    width: float


def pieces(row: Invocation, whole_ms: float | None = None) -> list[Piece]:
    """What there was of it, on a line that is `whole_ms` long (its own length where none is given)."""
    whole = max(whole_ms or row.total_ms, 0.001)
    streamed_ms = max(row.duration_ms - row.first_byte_ms, 0.0)
    took = (
        ("queue", row.queue_ms),
        ("init", row.init_ms),
        ("handler", row.duration_ms - streamed_ms),
        ("stream", streamed_ms),
    )
    found, start_ms = [], 0.0
    for name, took_ms in took:
        if took_ms > 0:
            found.append(Piece(name, start_ms, took_ms, start_ms / whole, max(took_ms / whole, LEAST)))
        start_ms += took_ms
    return found


def ticks(whole_ms: float, about: int = 5) -> list[float]:
    """Round times along a line of that length: 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** floor(log10(max(whole_ms, 0.001) / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if whole_ms / (power * factor) <= about)
    return [step * number for number in range(int(whole_ms / step) + 1)]

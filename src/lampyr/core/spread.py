"""How times are spread: counts in buckets an eighth of an octave wide, so that any percentile is within 4.5 %."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp2, log2

# The first bucket ends there; what is shorter is in it.
LEAST_MS = 0.01
PER_OCTAVE = 8


def bucket(ms: float) -> int:
    """The number of the bucket that `ms` is in."""
    return int(log2(ms / LEAST_MS) * PER_OCTAVE) + 1 if ms > LEAST_MS else 0


def end_ms(number: int) -> float:
    """The longest time in a bucket."""
    return LEAST_MS * exp2(number / PER_OCTAVE)


def middle_ms(number: int) -> float:
    """What a bucket stands for."""
    return LEAST_MS * exp2((number - 0.5) / PER_OCTAVE) if number else LEAST_MS / 2


def percentile(counts: Mapping[int, int], part: float) -> float | None:
    """The time in ms that `part` (0.99) of what was counted did not exceed; None where there is nothing."""
    total = sum(counts.values())
    left = total * part
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            return middle_ms(number)
    return None

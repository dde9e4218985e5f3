"""Free places between objects that stay: filled before a process forks, so that what its children make lies together.

CPython puts a new object into a pool of 16 KiB that has objects of its size already, wherever that lies, and a child
of a fork pays a page for the first thing it writes into each. With no place left there, it begins new pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

# Objects/obmalloc.c: sizes from 16 to 512 bytes, in steps of 16. With other pools less is filled, and nothing is wrong.
_STEP_BYTES, _MOST_BYTES = 16, 512
_POOL_BYTES = 16 * 1024
_POOL_HEADER_BYTES = 48
# `bytes` around its content; shorter ones than two bytes are made once for all.
_AROUND_BYTES = 33
# Of each size; 80 KiB are usual. An allocator without such pools (PYTHONMALLOC=malloc) would never be full.
_MOST_FILLED_BYTES = 512 * 1024


def fill() -> list[object]:
    """Objects in all these places. They are to be kept as long as the process lives."""
    return [one for size in range(_STEP_BYTES, _MOST_BYTES + 1, _STEP_BYTES) for one in _fill(size)]


def _fill(size: int) -> list[object]:
    """Objects of `size` bytes until there is a new pool for them."""
    make = _maker(size)
    made: list[object] = []
    in_pool: Counter[int] = Counter()
    # Other objects of that size, the numbers below among them, may be in a new pool too.
    enough = (_POOL_BYTES - _POOL_HEADER_BYTES) // size * 15 // 16
    while len(made) * size < _MOST_FILLED_BYTES:
        made.append(one := make())
        pool = id(one) // _POOL_BYTES
        in_pool[pool] += 1
        if in_pool[pool] > enough:
            return made[: -in_pool[pool]]
    return made


def _maker(size: int) -> Callable[[], object]:
    if size >= _AROUND_BYTES + 2:
        return partial(bytes, size - _AROUND_BYTES)
    return object if size == _STEP_BYTES else partial(float, 0.5)

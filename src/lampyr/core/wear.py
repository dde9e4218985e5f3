"""When an instance has served its time and another one should follow it (no I/O, no clock)."""

from __future__ import annotations

# What leaks slowly (a cache without bound, a library's handles) starts from nothing again after so many requests.
MOST_SERVED = 100_000
# An instance that needs more of its memory than this is about to be ended in the middle of a request.
FULL = 0.8
# What an instance has needed from its first requests on, the next one would need as well: only growth wears it out.
GROWTH = 0.1
MIB = 1024 * 1024


def worn(served: int, first_bytes: int, used_bytes: int, memory_bytes: int) -> str:
    """Why an instance should be followed by another; empty as long as it is good. Sizes are 0 where unknown."""
    if used_bytes >= FULL * memory_bytes and used_bytes - first_bytes >= GROWTH * memory_bytes:
        return f"it uses {used_bytes // MIB} of its {memory_bytes // MIB} MiB"
    return f"it has served {served} requests" if served >= MOST_SERVED else ""

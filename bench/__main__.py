"""Measures Lampyr beside uvicorn + Starlette, interleaved, and prints medians and ratios. Never asserts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cold
import servers
import stream
import warm

BENCHES: dict[str, Callable[[], None]] = {"cold": cold.main, "warm": warm.main, "stream": stream.main}


def main() -> int:
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        print(f"bench: error: unknown bench {unknown[0]!r}\nhint: one of {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    for name in wanted:
        BENCHES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())

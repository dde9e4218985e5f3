"""Free places are filled, so that what is made afterwards lies together. Each in a process without anything else."""

from __future__ import annotations

import os
import subprocess
import sys

SCATTERED = """
import gc, sys
from lampyr.runtime.holes import fill
gc.disable()
scattered = [bytes(100) for _ in range(4_000)]
del scattered[::2]
filled = fill()
pools = {id(one) >> 14 for one in scattered}
made = [bytes(100) for _ in range(50)]
print(len([one for one in made if id(one) >> 14 in pools]), sum(map(sys.getsizeof, filled)))
"""


def run(code: str, **env: str) -> list[int]:
    """The numbers that a Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


def test_what_is_made_after_holes_were_filled_lies_together() -> None:
    among_the_scattered, filled_bytes = run(SCATTERED)
    assert among_the_scattered <= 2  # something of that size may have been let go of since
    assert filled_bytes < 4 << 20


def test_where_there_are_no_pools_little_is_filled() -> None:
    code = "import sys; from lampyr.runtime.holes import fill; print(sum(map(sys.getsizeof, fill())))"
    (filled_bytes,) = run(code, PYTHONMALLOC="malloc")
    assert filled_bytes <= 32 * (512 * 1024 + 512)

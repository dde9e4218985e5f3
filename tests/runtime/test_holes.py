"""Free places are filled, so that what is made afterwards lies together."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lampyr.runtime.holes import fill


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="how CPython allocates")
def test_what_is_made_after_holes_were_filled_lies_together() -> None:
    scattered = [bytes(100) for _ in range(4_000)]
    del scattered[::2]
    filled = fill()
    pages = {id(one) >> 14 for one in scattered}
    made = [bytes(100) for _ in range(50)]
    assert not {id(one) >> 14 for one in made} & pages
    assert sum(map(sys.getsizeof, filled)) < 4 << 20


def test_where_there_are_no_pools_little_is_filled() -> None:
    code = "import sys; from lampyr.runtime.holes import fill; print(sum(map(sys.getsizeof, fill())))"
    plain = {**os.environ, "PYTHONMALLOC": "malloc"}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 32 * (512 * 1024 + 512)

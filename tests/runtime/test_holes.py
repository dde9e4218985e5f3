"""Free places are filled, so that what is made afterwards lies together."""

from __future__ import annotations

import sys

import pytest

from lampyr.runtime.holes import fill


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="how CPython allocates")
def test_what_is_made_after_holes_were_filled_lies_together() -> None:
    scattered = [bytes(100) for _ in range(20_000)]
    del scattered[::2]
    filled = fill()
    pages = {id(one) >> 14 for one in scattered}
    made = [bytes(100) for _ in range(50)]
    assert not {id(one) >> 14 for one in made} & pages
    assert len(filled) < 200_000

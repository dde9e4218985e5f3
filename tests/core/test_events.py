"""Where an event ends is seen however a stream is cut into pieces."""

from __future__ import annotations

import pytest

from lampyr.core.events import Tail


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_an_event_ends_with_an_empty_line_and_nothing_else_does(end: bytes, size: int) -> None:
    def between(text: bytes) -> bool:
        tail = Tail()
        for at in range(0, len(text), size):
            tail.passed(text[at : at + size])
            tail.passed(b"")
        return tail.between

    assert between(b"") and between(b"data: x" + end) and between(b"data: x\n\n: y" + end)
    for begun in (b"d", b"data: x", b"data: x\n", b"data: x" + end[:-1], b"data: x" + end + b"data: y"):
        assert not between(begun)

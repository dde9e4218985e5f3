"""What a socket had no room for is known to have reached nobody, frame by frame."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from lampyr.node.link import Link
from lampyr.runtime import wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packets are Linux's")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def request(stream: int, size: int = 1000) -> bytes:
    return wire.head_frame(stream, wire.REQUEST_WHOLE, [b"GET"], b"x" * size)


def fill(link: Link) -> list[bytes]:
    """Send until nothing more fits, and three frames more; what did not fit."""
    full: list[int] = []
    link.on_full = lambda: full.append(len(sent))
    sent: list[bytes] = []
    while not full:
        sent.append(request(len(sent) + 1))
        link.write(sent[-1])
    for _ in range(3):
        sent.append(request(len(sent) + 1))
        link.write(sent[-1])
    return sent[full[0] - 1 :]


def test_frames_without_room_come_back_whole_and_are_in_no_packet(loop: asyncio.AbstractEventLoop) -> None:
    link = Link(loop, one_at_a_time=True)
    left = fill(link)
    assert len(left) == 4 and link.unsent() == left
    packets = []
    while packet := link.unread():
        packets.append(packet)
    assert packets and not set(packets) & set(left)
    assert link.unsent() == []
    link.listen(lambda: None)
    link.close()


def test_what_may_have_left_in_part_does_not_come_back(loop: asyncio.AbstractEventLoop) -> None:
    link = Link(loop, one_at_a_time=True)
    large = request(1, 64 * wire.PACKET_BYTES)
    full: list[bool] = []
    link.on_full = lambda: full.append(True)
    link.write(large)
    assert full and link.torn
    behind = [request(2), request(3)]
    for frame in behind:
        link.write(frame)
    assert link.unsent() == behind
    link.listen(lambda: None)
    link.close()

"""An instance before its snapshot has told of it, and while requests are taken back that its process just reads."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import inside
import pytest

from lampyr.node import ends
from lampyr.node import link as links
from lampyr.node.instance import Instance
from lampyr.node.link import Link
from lampyr.node.pool import Pool
from lampyr.runtime import wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packets are Linux's")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pool(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Pool:
    return inside.pool(loop, tmp_path)


class Caller(SimpleNamespace):
    """As much of a call as an instance talks to here; `heard` has what it was told."""

    brief = True

    def chunk(self, data: bytes) -> None:
        self.heard.append(("chunk", self.id))

    def end(self) -> None:
        self.heard.append(("end", self.id))

    def returned(self) -> None:
        self.heard.append(("returned", self.id))


def test_its_number_is_known_as_soon_as_it_is_ready(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    link = Link(loop, one_at_a_time=True)
    instance = Instance(pool, 1, link, [], "")
    assert instance.host_pid() == 0
    child = os.fork()
    if child == 0:
        os.write(link.theirs(), wire.frame(0, wire.HELLO))
        os._exit(0)
    os.waitpid(child, 0)
    instance._read()
    assert (instance.state, instance.host_pid()) == ("idle", child)
    link.close()


def test_one_that_is_on_its_way_to_be_parked_is_no_instance_whatever_it_says(
    loop: asyncio.AbstractEventLoop, pool: Pool
) -> None:
    """Forked ahead of its call, it is not among those that there are: a call would be given to nobody."""
    link = Link(loop, one_at_a_time=True)
    instance = pool.parking.process = Instance(pool, 1, link, [], "")
    os.write(link.theirs(), wire.frame(0, wire.HELLO))
    instance._read()
    assert (instance.state, instance.killed) == ("starting", True)
    link.close()


def test_whose_socket_it_is_is_known_as_soon_as_it_is_ready(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """A chain of calls would begin anew, and be longer than it may, until its snapshot has told of the process."""
    link = Link(loop, one_at_a_time=False)
    instance = Instance(pool, 1, link, [], "")
    said, says = os.pipe()
    with socket.socket() as sock:
        child = os.fork()
        if child == 0:
            os.write(link.theirs(), wire.frame(0, wire.HELLO))
            os.write(says, b"x")
            signal.pause()
        os.read(said, 1)
        instance._read()
        try:
            assert ends.holder([instance], os.fstat(sock.fileno()).st_ino) is instance
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    link.close()
    for end in (said, says):
        os.close(end)


@pytest.mark.skipif(links.__file__.endswith(".so"), reason="methods of compiled classes cannot be replaced")
def test_an_eldest_request_that_was_put_back_behind_another_may_find_its_process_busy(
    loop: asyncio.AbstractEventLoop, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, heard = Link(loop, one_at_a_time=True), list[tuple[str, str]]()
    process = socket.socket(fileno=os.dup(link.theirs()))
    instance = Instance(pool, 1, link, [], "")
    instance.step("hello")
    eldest, other = (Caller(id=name, heard=heard) for name in ("eldest", "other"))
    for caller in (eldest, other):
        instance.step("lease")
        instance.begin(caller, wire.REQUEST_WHOLE, [b"GET"], b"")
    read: list[bytes] = []
    unread = Link.unread

    def interrupted(link: Link) -> bytes:
        """The process comes to read just after the gateway has taken the first packet out."""
        packet = unread(link)
        if not read:
            read.append(process.recv(wire.PACKET_BYTES))
        return packet

    monkeypatch.setattr(Link, "unread", interrupted)
    assert instance.take_back() == []
    read.append(process.recv(wire.PACKET_BYTES))
    assert [wire.HEADER.unpack_from(packet)[1] for packet in read] == [2, 1]
    process.send(wire.frame(1, wire.BUSY))  # it runs the other one
    instance._read()
    assert heard == [("returned", "eldest")] and list(instance.running.values()) == [other]
    process.close()
    link.close()


def test_chunks_go_before_the_book_keeping_of_streams_that_have_ended(
    loop: asyncio.AbstractEventLoop, pool: Pool
) -> None:
    link, heard = Link(loop, one_at_a_time=False), list[tuple[str, str]]()
    instance = Instance(pool, 1, link, [], "")
    instance.step("hello")
    for name in "ab":
        instance.step("lease") if not instance.running else None
        instance.begin(Caller(id=name, heard=heard), wire.REQUEST_WHOLE, [b"GET"], b"")
    frames = [wire.frame(stream, kind, b"") for stream in (1, 2) for kind in (wire.CHUNK, wire.END)]
    assert instance._take_packet(b"".join(frames))
    assert heard == [("chunk", "a"), ("chunk", "b"), ("end", "a"), ("end", "b")]
    link.close()

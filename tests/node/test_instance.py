"""An instance before its snapshot has told of it, and while requests are taken back that its process just reads."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lampyr.node import ends
from lampyr.node.instance import Instance
from lampyr.node.link import Link
from lampyr.runtime import wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packets are Linux's")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Pool:
    """As much of a pool as an instance talks to; `returned` has the calls that are to go elsewhere."""

    concurrency = 1
    function = SimpleNamespace(settings=SimpleNamespace(memory=128))
    parking = SimpleNamespace(holds=lambda process: False)
    snapshot = SimpleNamespace(fence=SimpleNamespace(end=lambda number: None))

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ahead = self
        self.returned_calls: list[Any] = []

    def returned(self, instance: Instance, callers: list[Any]) -> None:
        self.returned_calls += callers

    def hello(self, instance: Instance) -> None:
        instance.step("hello")

    def ended(self, instance: Instance) -> None:
        raise AssertionError(f"the process was ended: {instance.reason}")


def test_its_number_is_known_as_soon_as_it_is_ready(loop: asyncio.AbstractEventLoop) -> None:
    link = Link(loop, one_at_a_time=True)
    instance = Instance(Pool(loop), 1, link, [], "")  # type: ignore[arg-type]
    assert instance.host_pid() == 0
    child = os.fork()
    if child == 0:
        os.write(link.theirs(), wire.frame(0, wire.HELLO))
        os._exit(0)
    os.waitpid(child, 0)
    instance._read()
    assert (instance.state, instance.host_pid()) == ("idle", child)
    link.close()


def test_one_that_is_on_its_way_to_be_parked_is_no_instance_whatever_it_says(loop: asyncio.AbstractEventLoop) -> None:
    """Forked ahead of its call, it is not among those that there are: a call would be given to nobody."""
    link = Link(loop, one_at_a_time=True)
    pool = Pool(loop)
    instance = Instance(pool, 1, link, [], "")  # type: ignore[arg-type]
    pool.parking = SimpleNamespace(holds=lambda process: process is instance)
    os.write(link.theirs(), wire.frame(0, wire.HELLO))
    instance._read()
    assert (instance.state, instance.killed) == ("starting", True)
    link.close()


def test_whose_socket_it_is_is_known_as_soon_as_it_is_ready(loop: asyncio.AbstractEventLoop) -> None:
    """A chain of calls would begin anew, and be longer than it may, until its snapshot has told of the process."""
    link = Link(loop, one_at_a_time=False)
    instance = Instance(Pool(loop), 1, link, [], "")  # type: ignore[arg-type]
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


def test_an_eldest_request_that_was_put_back_behind_another_may_find_its_process_busy(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, pool = Link(loop, one_at_a_time=True), Pool(loop)
    process = socket.socket(fileno=os.dup(link.theirs()))
    instance = Instance(pool, 1, link, [], "")  # type: ignore[arg-type]  # a pool of the tests
    instance.step("hello")
    eldest, other = (SimpleNamespace(id=name, brief=True) for name in ("eldest", "other"))
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
    assert pool.returned_calls == [eldest] and list(instance.running.values()) == [other]
    process.close()
    link.close()


def test_chunks_go_before_the_book_keeping_of_streams_that_have_ended(loop: asyncio.AbstractEventLoop) -> None:
    link, pool, heard = Link(loop, one_at_a_time=False), Pool(loop), []
    pool.concurrency = 2
    instance = Instance(pool, 1, link, [], "")  # type: ignore[arg-type]  # a pool of the tests
    instance.step("hello")

    class Caller(SimpleNamespace):
        def chunk(self, data: bytes) -> None:
            heard.append(("chunk", self.id))

        def end(self) -> None:
            heard.append(("end", self.id))

    for name in "ab":
        instance.step("lease") if not instance.running else None
        instance.begin(Caller(id=name, brief=True), wire.REQUEST_WHOLE, [b"GET"], b"")
    frames = [wire.frame(stream, kind, b"") for stream in (1, 2) for kind in (wire.CHUNK, wire.END)]
    assert instance._take_packet(b"".join(frames))
    assert heard == [("chunk", "a"), ("chunk", "b"), ("end", "a"), ("end", "b")]
    link.close()

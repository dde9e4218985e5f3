"""What a process that forks for the gateway may send it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time

import pytest

from lampyr.node.forks import Forks
from lampyr.node.processes import is_below
from lampyr.runtime.channel import Channel

LINGER_S = 10


def slow_to_close() -> tuple[socket.socket, list[socket.socket]]:
    """A socket for whose close one waits, and what it takes that it is so."""
    listener = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(listener.getsockname())
    peer, _ = listener.accept()
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_S))
    return sock, [listener, peer]


@pytest.mark.parametrize("count", [1, 30], ids=["with a message", "more than any message brings"])
def test_nobody_waits_for_what_it_takes_to_close_what_was_sent(count: int) -> None:
    async def receive() -> float:
        ours, theirs = Channel.pair()
        told: list[object] = []
        forks = Forks(asyncio.get_running_loop(), ours, told.append, lambda: told.append("lost"))
        sock, others = slow_to_close()
        theirs.send({"threads": 1}, (sock.fileno(),) * count)
        sock.close()
        began_s = time.monotonic()
        while not told:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        took_s = time.monotonic() - began_s
        assert told == ([{"threads": 1}] if count == 1 else ["lost"])
        for one in others:
            one.close()
        forks.close()
        theirs.close()
        return took_s

    assert asyncio.run(receive()) < LINGER_S / 2


def test_who_is_below_whom() -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    assert is_below(pidfd, os.getpid()) and is_below(pidfd, os.getppid())
    assert not is_below(pidfd, pid)
    assert not is_below(os.pidfd_open(os.getpid()), pid)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert is_below(pidfd, 1 << 22)  # it is over: whoever is told to end it ends nobody
    os.close(pidfd)


def test_a_child_that_is_just_being_waited_for_is_still_ours() -> None:
    """While it is waited for, the system says for some microseconds that its parent is 0."""
    for _ in range(500):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        pidfd = os.pidfd_open(pid)
        reaper = threading.Thread(target=os.waitpid, args=(pid, 0))
        reaper.start()
        os.close(writer)
        while reaper.is_alive():
            assert is_below(pidfd, os.getpid())
        reaper.join()
        os.close(reader)
        os.close(pidfd)

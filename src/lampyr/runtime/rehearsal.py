"""A few invocations of a handler that does nothing, run in the base before anything is forked from it.

CPython writes into its bytecode while it learns what a line is used for (PEP 659), and every first write to a page
after a fork is a fault and a copy, 3 µs each. What has been learned here is shared by all that is forked: a new
instance takes a third fewer faults until it has answered.

So do the names that CPython has looked up in a type: the last 4,096 of all types are at hand, and each new one writes
into the string that it takes the place of. A shared snapshot, where an import has left its own, is rehearsed again.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import threading
from collections.abc import Callable

from lampyr.runtime import context, load, reseed, wire
from lampyr.runtime.channel import Channel
from lampyr.runtime.instance import Instance
from lampyr.runtime.leftovers import Leftovers
from lampyr.runtime.program import Program
from lampyr.runtime.request import Request
from lampyr.runtime.response import Response

# How often code has to run until nothing more is learned from it; and until all its names have been looked up.
TIMES, TIMES_AGAIN = 64, 4
TIMES_IMPORTED = 16
KINDS = (socket.SOCK_STREAM, getattr(socket, "SOCK_SEQPACKET", socket.SOCK_STREAM))
EMPTY = f"{os.path.dirname(__file__)}/__init__.py"
_HEAD = [b"0", b"POST", b"http://localhost", b"/", b"", b"", b"127.0.0.1", b"10.000", b"", b"host", b"localhost"]


async def _handler(request: Request) -> Response:
    return Response.json(await request.json())


def rehearse(*steps: Callable[[], None], times: int = TIMES) -> None:
    """Start instances in this process and let them answer; `steps` are what else each does first."""
    _forget_lookups()
    program = Program("", {"POST": _handler}, None, 1)
    for turn in range(times):
        _begin_anew()
        for step in steps:
            step()
        _answer(program, KINDS[turn % len(KINDS)])


def rehearse_import(times: int = TIMES_IMPORTED) -> None:
    """Do what the snapshot of a function does until it has imported that, with an empty file."""
    for _ in range(times):
        _hear_environment()
        _import_nothing()


def answer_once(kind: int) -> None:
    """Answer in a process that will soon have to, over a socket of this kind: it writes where that will write."""
    _answer(Program("", {"POST": _handler}, None, 1), kind)


def _forget_lookups() -> None:
    """Empty the cache of names. It has one name since Python 3.13 and another one before."""
    for name in ("_clear_internal_caches", "_clear_type_cache"):
        if hasattr(sys, name):
            getattr(sys, name)()
            return


def _hear_environment() -> None:
    ours, theirs = Channel.pair()
    ours.send({"env": {"LAMPYR_REHEARSAL": ""}})
    received = theirs.receive()
    assert received is not None
    os.environ.update(received[0]["env"])
    del os.environ["LAMPYR_REHEARSAL"]
    ours.close()
    theirs.close()


def _import_nothing() -> None:
    folder = os.path.dirname(EMPTY)
    with Leftovers(folder, EMPTY) as left:
        module = load.load(EMPTY, folder)
        Program(EMPTY, load.handlers(module), load.application(module), 1)
    left.found([*left.seeded()])
    del sys.modules[module.__name__]


def _begin_anew() -> None:
    """What every child of a fork does first: the interpreter by itself, and an instance (runtime/snapshot.py).

    What `threading` and `logging` do then has no public name; nothing here needs it, a start is only slower without.
    """
    if threading.active_count() == 1:
        getattr(threading, "_after_fork", random.seed)()
    getattr(logging, "_after_at_fork_child_reinit_locks", random.seed)()
    reseed.reseed()
    context.run_hooks("after_restore")


def _answer(program: Program, kind: int) -> None:
    """An instance's first turns, with a socket as those have that serve one request at a time, or many."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    instance = Instance(program)
    instance.greet(theirs)
    instance.open(theirs)
    for stream in (1, 2):
        ours.send(wire.head_frame(stream, wire.REQUEST_WHOLE, _HEAD, b'{"prompt": "hello"}'))
        instance.loop.call_soon(instance.loop.stop)
        instance.loop.run_forever()
        ours.recv(wire.PACKET_BYTES)
    instance.loop.close()
    theirs.close()
    ours.close()

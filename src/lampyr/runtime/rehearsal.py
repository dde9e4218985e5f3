"""A few invocations of a handler that does nothing, run in the base before anything is forked from it.

CPython writes into its bytecode while it learns what a line is used for (PEP 659), and every first write to a page
after a fork is a fault and a copy, 3 µs each. What has been learned here is shared by all that is forked: a new
instance takes a third fewer faults until it has answered.
"""

from __future__ import annotations

import asyncio
import socket

from lampyr.runtime import wire
from lampyr.runtime.instance import Instance
from lampyr.runtime.program import Program
from lampyr.runtime.request import Request
from lampyr.runtime.response import Response

# How often code has to run until nothing more is learned from it.
TIMES = 64
_HEAD = [b"0", b"POST", b"http://localhost", b"/", b"", b"", b"127.0.0.1", b"10.000", b"", b"host", b"localhost"]


async def _handler(request: Request) -> Response:
    return Response.json(await request.json())


def rehearse() -> None:
    """Start instances in this process and let them answer."""
    program = Program("", {"POST": _handler}, None, 1)
    for _ in range(TIMES):
        ours, theirs = socket.socketpair()
        instance = Instance(program)
        instance.open(theirs)
        for stream in (1, 2):
            ours.send(wire.head_frame(stream, wire.REQUEST_WHOLE, _HEAD, b'{"prompt": "hello"}'))
            instance.read()
            ours.recv(wire.PACKET_BYTES)
        instance.loop.call_soon(instance.loop.stop)
        instance.loop.run_forever()
        instance.loop.close()
        theirs.close()
        ours.close()
    asyncio.set_event_loop(None)

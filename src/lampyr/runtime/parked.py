"""A child that was forked ahead of the call it is for: as ready as can be without the user's code, it waits.

After a fork the first use of each page is a fault and the first write a copy; 800 of these are most of a cold start.
Here they are taken while nobody waits, by a few answers to nobody (see rehearsal). Hooks after the fork, an
application's lifespan, everything that is the user's runs when the process is wanted, as in any other.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from lampyr.runtime import frameworks, rehearsal, wire
from lampyr.runtime.instance import Instance, leave


def wait_to_be_wanted(instance: Instance, sock: socket.socket, pages: bytes, *, prompt: bool) -> None:
    """Return when the gateway wants this process; where it has let go of it, that ends.

    `prompt`: nothing of the user's has to run before a request can be read, so that may be the first thing to come.
    """
    instance.settle()
    _populate(pages)
    with suppress(Exception):  # what the user's packages have changed in asyncio; the first request takes longer then
        rehearsal.answer_once(sock.type)
        if instance.application is not None:
            frameworks.rehearse(again=True)
    sock.setblocking(True)
    try:
        sock.send(wire.frame(0, wire.PARKED, bytes([prompt])))
        head = sock.recv(wire.HEADER_BYTES, socket.MSG_PEEK)
    except OSError:
        leave(0)
    if not head:
        leave(0)
    if head[-1] == wire.WAKE:
        sock.recv(wire.HEADER_BYTES)
    instance.greeted = prompt


def _populate(pages: bytes) -> None:
    """Write to the pages that an instance before has written to (node/touched.py)."""
    if pages:
        from lampyr.runtime import kernel

        ranges = memoryview(pages).cast("Q")
        for start, length_bytes in zip(ranges[::2], ranges[1::2], strict=True):
            kernel.populate(start, length_bytes)

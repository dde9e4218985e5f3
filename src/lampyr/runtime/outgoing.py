"""Connections to the gateway say how deep the invocation is that makes them, so that loops can be told from fans.

The gateway would find out which process a connection belongs to, but not which of the many requests that an edge
instance serves at a time. The mark is the socket's type of service, which the kernel shows the gateway (node/ends.py):
no client has to send anything, and all that are written in Python connect here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import wraps
from typing import Any

from lampyr.core.depth import HEADER, mark, told
from lampyr.runtime import context


def mark_connections(ports: list[int]) -> None:
    """Have sockets marked that are about to be connected to one of the gateway's ports."""
    if ports:
        for name in ("connect", "connect_ex"):
            setattr(socket.socket, name, _marking(getattr(socket.socket, name), ports))


def _marking(connect: Callable[..., Any], ports: list[int]) -> Callable[..., Any]:
    @wraps(connect)
    def marked(self: socket.socket, address: Any, /) -> Any:
        if type(address) is tuple and address[1:2] and address[1] in ports:
            _mark(self)
        return connect(self, address)

    return marked


def _mark(sock: socket.socket) -> None:
    """Outside of any invocation (threads of the user's own) there is nothing to say."""
    invocation = context.current.get(None)
    if invocation is None:
        return
    service = mark(told(invocation.request.headers.get(HEADER, "")))
    try:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, service)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, service)
    except OSError:
        pass  # a socket of another kind, or of a system that wants it otherwise

"""What functions send says which invocation sends it: connections to the gateway, requests to the broker.

Connections to the gateway say how deep the invocation is that makes them, so that loops can be told from fans.

The gateway would find out which process a connection belongs to, but not which of the many requests that an edge
instance serves at a time. The mark is the socket's type of service, which the kernel shows the gateway (node/ends.py):
no client has to send anything, and all that are written in Python connect here. Connections to the broker are kept from
one invocation to the next, so there each request has a header, where the client is one of those that are known here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import wraps
from typing import Any

from lampyr.core.depth import HEADER, mark, told
from lampyr.runtime import clients, context


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


# The broker takes it out. What it says counts only if that invocation is one of the function that calls.
ID_HEADER = "x-lampyr-id"


def name_invocations(broker: str | None) -> None:
    """Have the HTTP clients that a function imports say in requests to the broker, at host:port, who calls."""
    if broker is None:
        return

    def httpx(module: Any) -> None:
        module.Request.__init__ = _naming(module.Request.__init__, broker)

    def aiohttp(module: Any) -> None:
        module.ClientRequest.__init__ = _naming(module.ClientRequest.__init__, broker)

    def http_client(module: Any) -> None:
        module.HTTPConnection.putrequest = _putting(module.HTTPConnection.putrequest, broker)

    clients.teach(
        {
            "httpx2": httpx,  # the SDKs of OpenAI and Anthropic
            "httpx": httpx,
            "aiohttp.client_reqrep": aiohttp,
            "http.client": http_client,  # urllib, urllib3, requests
        }
    )


def _naming(init: Callable[..., None], broker: str) -> Callable[..., None]:
    @wraps(init)
    def named(self: Any, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        invocation = context.current.get(None)
        if invocation is not None and f"{self.url.host}:{self.url.port}" == broker:
            self.headers[ID_HEADER] = invocation.request.id

    return named


def _putting(put: Callable[..., None], broker: str) -> Callable[..., None]:
    @wraps(put)
    def named(self: Any, *arguments: Any, **keywords: Any) -> None:
        put(self, *arguments, **keywords)
        invocation = context.current.get(None)
        if invocation is not None and f"{self.host}:{self.port}" == broker:
            self.putheader(ID_HEADER, invocation.request.id)

    return named

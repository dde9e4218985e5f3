"""What a connection's socket can be asked and told beyond its bytes."""

from __future__ import annotations

import asyncio
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LOOPBACK = ("127.", "::ffff:127.")
_ESTABLISHED = 1  # tcpi_state, the first byte of Linux's tcp_info


def from_inside(transport: asyncio.BaseTransport) -> bool:
    """Whether the client is on this machine: it has the same address, unless it insists on another."""
    peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
    return bool(peer and own and (peer[0] == own[0] or peer[0].startswith(_LOOPBACK)))


def ends(transport: asyncio.BaseTransport) -> tuple[tuple[str, int], tuple[str, int]]:
    """Address and port of the client, and our own."""
    peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
    return peer[:2], own[:2]


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Let the client see a reset instead of an end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the client's end has come while nothing is read: Linux tells; elsewhere the next write will."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return False
    return bool(state[0] != _ESTABLISHED)

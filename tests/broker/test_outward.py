"""A name of a public provider that leads into a private network is not followed."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from ipaddress import ip_address
from typing import Any

import httpcore2
import pytest

from lampyr.broker.desk import Provider
from lampyr.broker.outward import Outward, public_hosts

PLAIN: dict[str, Any] = {"secret": None, "key": None, "paths": None, "models": None, "timeout": 9.0, "retries": 0}


def provider(kind: str, base_url: str) -> Provider:
    return Provider(name="p", kind=kind, base_url=base_url, **PLAIN)


def test_who_has_to_be_on_the_internet() -> None:
    found = public_hosts(
        provider(kind, f"https://{host}")
        for kind, host in (
            ("openai", "api.openai.com/v1"),
            ("anthropic", "api.anthropic.com"),
            ("openai", "127.0.0.1:80"),
            ("openai", "[::1]:80"),
            ("openai", "localhost:80"),
            ("openai-compatible", "model.internal"),
        )
    )
    assert found == {"api.openai.com", "api.anthropic.com"}


def own_name() -> str:
    """A name that leads to this machine."""
    for name in (socket.gethostname(), "localhost"):
        try:
            found = {str(one[4][0]) for one in socket.getaddrinfo(name, 80, socket.AF_INET)}
        except OSError:
            continue
        if not any(ip_address(one).is_global for one in found):
            return name
    pytest.skip("no name of this machine has a private address")


def test_a_public_name_with_a_private_address_is_not_connected_to() -> None:
    name = own_name()
    with closing(socket.socket()) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]

        async def connect(public: bool) -> None:
            stream = await Outward(lambda host: public and host == name).connect_tcp(name, port, 5.0)
            await stream.aclose()

        with pytest.raises(httpcore2.ConnectError, match="private network"):
            asyncio.run(connect(True))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        asyncio.run(connect(False))
        listener.accept()[0].close()

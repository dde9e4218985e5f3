"""Connections to providers: a name of theirs that leads into this machine's own networks is not followed.

OpenAI and Anthropic are on the internet. Where the name of one of them has a private address, somebody else has
answered for it, and what listens there is not theirs. What speaks like OpenAI may be anywhere.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpcore2

from lampyr.broker.desk import Provider

PUBLIC_KINDS = ("openai", "anthropic")


class Outward(httpcore2.AnyIOBackend):
    """`is_public(host)` says whether a host has to be on the internet."""

    def __init__(self, is_public: Callable[[str], bool]) -> None:
        self._is_public = is_public

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """As always. To a public host by the address that was looked at, so that no second answer can differ."""
        if not self._is_public(host):
            return await super().connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            async with asyncio.timeout(timeout):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if not all(ip_address(one.partition("%")[0]).is_global for one in addresses):
            raise httpcore2.ConnectError("the name leads into a private network")
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError:
                continue
        return await super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


def public_hosts(providers: Iterable[Provider]) -> frozenset[str]:
    """Names that have to be on the internet; an address is what its writer wanted, and so is localhost."""
    urls = (urlsplit(one.base_url) for one in providers if one.kind in PUBLIC_KINDS)
    return frozenset(url.hostname for url in urls if url.hostname and not _is_meant(url.hostname))


def _is_meant(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True

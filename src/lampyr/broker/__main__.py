"""The broker process: calls providers for functions, with the keys that these never hold. Control tells it who may."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import ssl
import sys
from functools import partial
from pathlib import Path

import anyio
import httpcore2
import uvloop

from lampyr.broker.bills import Bills
from lampyr.broker.cache import Cache
from lampyr.broker.call import Call
from lampyr.broker.desk import Desk
from lampyr.broker.log import Log
from lampyr.broker.outward import Outward, public_hosts
from lampyr.gateway.http import Connection, Connections, Exchange
from lampyr.gateway.ids import Ids
from lampyr.node import descriptors
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, ChannelError, Message, unpack

MAX_CONNECTIONS = 4096
# Connections to providers that are kept for the next call, and how long.
KEPT, KEPT_S = 64, 30.0


class Broker:
    """Listens on loopback for functions. `supervisor` brings the socket and the channel to control."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Channel) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._control: Channel | None = None
        self._desk = Desk()
        self._log = Log(loop, self._keep)
        self._cache = Cache()
        self._host = ""
        self._public_hosts: frozenset[str] = frozenset()
        self._ids, self._connections = Ids(), Connections(MAX_CONNECTIONS)
        self._bills: Bills | None = None
        self._hatches: dict[int, asyncio.Task[asyncio.Server]] = {}
        # Of the environment it takes none but OpenSSL's own variables: no proxy is between the key and the provider.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=KEPT,
            keepalive_expiry=KEPT_S,
            network_backend=Outward(lambda host: host in self._public_hosts),
        )
        loop.add_reader(supervisor.fileno(), self._hear, supervisor)
        self._hear(supervisor)  # what came along with the first message

    def _hear(self, channel: Channel) -> None:
        try:
            messages, alive = channel.drain()
        except (ChannelError, OSError):
            messages, alive = [], False
        for message, fds in messages:
            self._act(message, fds)
        if not alive:
            self._loop.remove_reader(channel.fileno())
            if channel is self._supervisor:
                os._exit(0)
            channel.close()

    def _act(self, message: Message, fds: list[int]) -> None:
        if "listen" in message:
            self._bills = Bills(Path(message["ledger"]), self._log.platform)
            self._loop.create_task(self._listen(socket.socket(fileno=fds[0])))
        elif "control" in message:
            for number in list(self._hatches):  # the next control says which there are
                self._open_hatch(number, "", [])
            self._control = Channel.from_fd(fds[0])
            self._loop.add_reader(self._control.fileno(), self._hear, self._control)
        elif "desk" in message:
            self._desk.told(json.loads(unpack(fds[0])), message["desk"])
            self._public_hosts = public_hosts(self._desk.providers)
        elif "terms" in message:
            assert self._bills is not None  # the supervisor tells of the ledger before it tells of control
            self._bills.told(json.loads(unpack(fds[0])))
        elif "hatch" in message:
            self._open_hatch(message["hatch"], message["function"], fds)
        elif "users" in message:
            self._desk.told_users(json.loads(unpack(fds[0])))

    def _keep(self, route: str, text: str) -> None:
        """The gateway keeps the log; while control is away, nobody takes a line there."""
        if self._control is not None:
            try:
                self._control.send({"said": text, "function": route or None}, wait=False)
            except OSError:
                pass

    async def _listen(self, sock: socket.socket) -> None:
        host, port = sock.getsockname()[:2]
        self._host = f"{host}:{port}"
        await anyio.sleep(0)  # httpcore2 waits with it; its first use imports for 40 ms
        # What start-up allocated lives as long as the process: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        await self._server(sock, None)

    async def _server(self, sock: socket.socket, function: str | None) -> asyncio.Server:
        """Serve a socket at which only `function` can be; None: whoever is on this machine's loopback."""
        serve = partial(self._serve, function=function)
        return await self._loop.create_server(
            lambda: Connection(serve, self._ids.new, self._connections), sock=sock, backlog=2048
        )

    def _open_hatch(self, number: int, function: str, fds: list[int]) -> None:
        """Serve inside a room that has no network; without a descriptor: not any more."""
        if (before := self._hatches.pop(number, None)) is not None:
            before.add_done_callback(lambda done: done.result().close())
        if fds:
            self._hatches[number] = self._loop.create_task(self._server(socket.socket(fileno=fds[0]), function))

    def _serve(self, exchange: Exchange, *, function: str | None) -> None:
        assert self._bills is not None
        Call(exchange, self._host, self._desk, self._pool, self._bills, self._cache, self._log, function)


def main() -> None:
    sandbox.close_memory()
    descriptors.make_room()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    gc.set_threshold(50_000, 20, 50)
    broker = Broker(loop, Channel.from_fd(int(sys.argv[1])))
    loop.run_forever()
    del broker


if __name__ == "__main__":
    main()

"""The console process: what people see of the server. It exists only while somebody looks."""

from __future__ import annotations

import asyncio
import os
import socket

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lampyr.console import app
from lampyr.console.facts import Facts
from lampyr.console.line import Line
from lampyr.console.token import Token
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, ChannelError, Message, introduced

# A page that is open, and a Prometheus that comes every minute, keep a connection.
IDLE_S = 90.0
LOOK_S = 1.0
HEAD_WITHIN_S = 10.0
MAX_CONNECTIONS = 128
MAX_HEAD_BYTES = 32 * 1024


class Console:
    """Serves `sock` until nobody has been connected for a while."""

    def __init__(self, supervisor: Channel, told: Message, sock: socket.socket) -> None:
        self._supervisor = supervisor
        self._sock = sock
        self._control = Line()
        config = uvicorn.Config(
            app.build(Facts.told(told, self._control), Token(told["token"]), sock.getsockname()[1]),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)

    async def run(self) -> None:
        """Returns when it is idle."""
        asyncio.get_running_loop().add_reader(self._supervisor.fileno(), self._hear)
        self._hear()  # what came along with the first message
        watching = asyncio.create_task(self._look())
        await self._server.serve(sockets=[self._sock])
        watching.cancel()

    def _hear(self) -> None:
        try:
            messages, alive = self._supervisor.drain()
        except (ChannelError, OSError):
            messages, alive = [], False
        for message, fds in messages:
            if "control" in message:
                self._control.connect(socket.socket(fileno=fds[0]))
        if not alive:
            os._exit(0)

    async def _look(self) -> None:
        """End when idle: who comes then waits in the socket's queue, and the supervisor starts another process."""
        quiet_s = 0.0
        silent_s: dict[H11Protocol, float] = {}  # by connections on which nobody has asked anything yet
        while quiet_s < IDLE_S:
            await asyncio.sleep(LOOK_S)
            connections = [one for one in self._server.server_state.connections if isinstance(one, H11Protocol)]
            quiet_s = 0.0 if connections else quiet_s + LOOK_S
            silent_s = {one: silent_s.get(one, 0.0) + LOOK_S for one in connections if one.cycle is None}
            for one, so_long_s in silent_s.items():
                if so_long_s > HEAD_WITHIN_S:
                    one.transport.close()
        for server in self._server.servers:
            server.close()
        self._server.should_exit = True


def main() -> None:
    sandbox.close_memory()
    supervisor, told, fds = introduced()

    async def run() -> None:
        await Console(supervisor, told, socket.socket(fileno=fds[0])).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()

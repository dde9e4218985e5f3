"""Our end of the channel to the broker: who may call which provider, with what key, and whose user ids are whose."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from lampyr.control.loop import Loop
from lampyr.runtime.channel import Channel, ChannelError, Message, parcel


class Broker:
    """Says again to a broker that takes the place of a dead one what the one before knew. All of it goes unread."""

    def __init__(self, loop: Loop, told: Callable[[], None]) -> None:
        """`told` when there is something to hear."""
        self._loop = loop
        self._told = told
        self._channel: Channel | None = None
        self._said: dict[tuple[str, str], int] = {}
        self._hatches: dict[int, tuple[str, int]] = {}

    def connect(self, channel: Channel) -> None:
        """There is a broker process, perhaps in place of one that has died."""
        self._close()
        self._channel = channel
        self._loop.hear(channel.fileno(), self._told)
        for (what, about), told in self._said.items():
            self._send({what: about}, told)
        for number, (route, fd) in self._hatches.items():
            self._send({"hatch": number, "function": route}, fd)

    def heard(self) -> list[Message]:
        """What the broker has said; its end is seen here too."""
        assert self._channel is not None
        try:
            messages, alive = self._channel.drain()
        except (ChannelError, OSError):
            messages, alive = [], False
        if not alive:
            self._close()
        return [message for message, _ in messages]

    def tell(self, what: str, told: int, about: str = "") -> None:
        """Say "desk" about an environment, "users" or "terms" (broker/__main__.py). The parcel is ours from now on."""
        if (what, about) in self._said:
            os.close(self._said[what, about])
        self._said[what, about] = told
        self._send({what: about}, told)

    def shut_desk(self, environment: str) -> None:
        """Nothing of this environment is deployed any more, and the broker has no use for its keys."""
        if ("desk", environment) in self._said:
            self.tell("desk", parcel(json.dumps({"providers": [], "functions": {}}).encode()), environment)
            os.close(self._said.pop(("desk", environment)))

    def hatch(self, number: int, route: str, fd: int | None) -> None:
        """A function without a network reaches it there (node/hatches.py); None: not any more."""
        if number in self._hatches:
            os.close(self._hatches.pop(number)[1])
        if fd is not None:
            self._hatches[number] = route, fd
        self._send({"hatch": number, "function": route}, *(() if fd is None else (fd,)))

    def shut_hatches(self) -> None:
        """There is another gateway, and none of them is left."""
        for number, (route, _) in list(self._hatches.items()):
            self.hatch(number, route, None)

    def _close(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _send(self, message: Message, *fds: int) -> None:
        if self._channel is not None:
            try:
                self._channel.send(message, fds)
            except OSError:
                pass  # it has died; the next one is told

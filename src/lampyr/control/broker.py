"""Our end of the channel to the broker: who may call which provider, with what key, and whose user ids are whose."""

from __future__ import annotations

import os

from lampyr.runtime.channel import Channel, ChannelError, Message


class Broker:
    """Says again to a broker that takes the place of a dead one what the one before knew. All of it goes unread."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._said: dict[str, int] = {}
        self._hatches: dict[int, tuple[str, int]] = {}

    def connect(self, channel: Channel) -> None:
        """There is a broker process, perhaps in place of one that has died."""
        if self._channel is not None:
            self._channel.close()
        self._channel = channel
        for what, parcel in self._said.items():
            self._send({what: True}, parcel)
        for number, (route, fd) in self._hatches.items():
            self._send({"hatch": number, "function": route}, fd)

    def fileno(self) -> int:
        """Of the channel; -1 while there is no broker."""
        return self._channel.fileno() if self._channel is not None else -1

    def heard(self) -> list[Message]:
        """What the broker has said; its end is seen here too."""
        assert self._channel is not None
        try:
            messages, alive = self._channel.drain()
        except (ChannelError, OSError):
            messages, alive = [], False
        if not alive:
            self._channel.close()
            self._channel = None
        return [message for message, _ in messages]

    def tell(self, what: str, parcel: int) -> None:
        """Say "desk", "users" or "terms" (broker/__main__.py). The parcel is ours from now on."""
        if what in self._said:
            os.close(self._said[what])
        self._said[what] = parcel
        self._send({what: True}, parcel)

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

    def _send(self, message: Message, *fds: int) -> None:
        if self._channel is not None:
            try:
                self._channel.send(message, fds)
            except OSError:
                pass  # it has died; the next one is told

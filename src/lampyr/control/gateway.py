"""Our end of the channel to the gateway: what is deployed, what it is asked, and what it has to say in the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from lampyr.control.loop import Loop
from lampyr.runtime.channel import Channel, Message, unpack


class Gateway:
    """Asks a gateway that takes the place of a dead one again what that has not answered."""

    def __init__(self, loop: Loop, told: Callable[[], None]) -> None:
        """`told` when there is something to hear."""
        self._loop = loop
        self._told = told
        self._channel: Channel | None = None
        # What it has yet to answer, and what is done with the answer.
        self._questions: dict[int, tuple[Message, Callable[[Any], None]]] = {}
        self._numbers = count(1)

    @property
    def there(self) -> bool:
        return self._channel is not None

    def connect(self, channel: Channel) -> None:
        """There is a gateway, perhaps in place of one that has died."""
        self._close()
        self._channel = channel
        self._loop.hear(channel.fileno(), self._told)

    def heard(self) -> list[tuple[Message, list[int]]]:
        """What the gateway has said of its own accord; answers go to who has asked, and its end is seen here too."""
        assert self._channel is not None
        messages, alive = self._channel.drain()
        others = [(message, fds) for message, fds in messages if not self._is_answer(message, fds)]
        if not alive:
            self._close()
        return others

    def _is_answer(self, message: Message, fds: list[int]) -> bool:
        if message.get("answer") not in self._questions:
            return False
        _, then = self._questions.pop(message["answer"])
        then(json.loads(unpack(fds[0])))
        return True

    def ask(self, question: Message, then: Callable[[Any], None]) -> None:
        """Ask it, and the next one if this one dies before it answers."""
        number = next(self._numbers)
        self._questions[number] = ({**question, "question": number}, then)
        self.send(self._questions[number][0])

    def ask_again(self) -> None:
        """It is another one than was asked."""
        for question, _ in self._questions.values():
            self.send(question)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        if self._channel is not None:
            try:
                self._channel.send(message, fds)
            except OSError:
                pass  # a new gateway is on its way; it gets the deployment then

    def say(self, text: str) -> None:
        """Have something said in the log and on the terminal."""
        self.send({"log": text})

    def _close(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

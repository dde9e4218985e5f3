"""What the vault process says the functions may have: control asks it at every deployment."""

from __future__ import annotations

from collections.abc import Iterable

from lampyr.errors import VaultError
from lampyr.runtime.channel import Channel, ChannelError, Message
from lampyr.types import Function, Secret

# It answers in milliseconds, or after a passphrase was stretched, or never.
PATIENCE_S = 10.0


class Unreachable(Exception):
    """There is no vault process at the moment, and there will be another."""


class Sealed:
    """Our end of the channel to the vault process. `secrets` is what it said last; None: nothing yet."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.secrets: dict[str, Secret] | None = None
        self._asked = 0
        self._news = False

    def connect(self, channel: Channel) -> None:
        """There is a vault process, perhaps in place of one that has died."""
        self.close()
        self.channel = channel

    def close(self) -> None:
        """Forget the process; what it said stays."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def ask(self, functions: Iterable[Function]) -> dict[str, Secret]:
        """What these functions may have, as the vault is now. Raises VaultError or Unreachable."""
        self._asked += 1
        wanted = {one.route: one.settings.secrets for one in functions}
        answer = self._answer({"ask": self._asked, "functions": wanted})
        if "error" in answer:
            raise VaultError(answer["error"], answer["hint"])
        self.secrets = {name: Secret(value, _routes(who), version) for name, (value, who, version) in _told(answer)}
        return self.secrets

    def _answer(self, question: Message) -> Message:
        if self.channel is None:
            raise Unreachable
        try:
            self.channel.sock.settimeout(PATIENCE_S)
            self.channel.send(question)
            while (received := self.channel.receive()) is not None:
                if received[0].get("answer") == question["ask"]:
                    self.channel.sock.settimeout(None)
                    return received[0]
                self._news = True
        except (OSError, ChannelError):
            pass
        self.close()
        raise Unreachable

    def heard(self) -> bool:
        """Whether the vault has changed since it was asked. Called when there is something to read."""
        assert self.channel is not None
        try:
            messages, alive = self.channel.drain()
        except ChannelError:
            messages, alive = [], False
        if not alive:
            self.close()
        news, self._news = bool(messages) or self._news, False
        return news


def _told(answer: Message) -> Iterable[tuple[str, tuple[str, list[str] | None, int]]]:
    secrets: dict[str, tuple[str, list[str] | None, int]] = answer["secrets"]
    return secrets.items()


def _routes(who: list[str] | None) -> tuple[str, ...] | None:
    return None if who is None else tuple(who)

"""What the vault process says of the functions' environments: control asks it at every deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lampyr.build.handout import Common
from lampyr.control.loop import Loop
from lampyr.errors import VaultError
from lampyr.runtime.channel import Channel, ChannelError, Message
from lampyr.types import Project

# It answers in milliseconds, or when a passphrase is stretched, or public/ looked through for the first time, or never.
PATIENCE_S = 60.0


class Unreachable(Exception):
    """There is no vault process at the moment, and there will be another."""


@dataclass(frozen=True, slots=True)
class Handed:
    """`private` is a parcel for the gateway and `desk`, where there is a broker, one for that. They are not read here.

    `refused`: the vault cannot be opened any more; the values are those that were in it before.
    """

    common: Common
    private: int
    desk: int | None
    refused: VaultError | None


class Sealed:
    """Our end of the channel to the vault process."""

    def __init__(self, loop: Loop, told: Callable[[], None]) -> None:
        """`told` when there is something to hear."""
        self._loop = loop
        self._told = told
        self._channel: Channel | None = None
        self._asked = 0
        self._news = False

    def connect(self, channel: Channel) -> None:
        """There is a vault process, perhaps in place of one that has died."""
        self._close()
        self._channel = channel
        self._loop.hear(channel.fileno(), self._told)

    def _close(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def ask(self, project: Project, environment: str) -> Handed:
        """What its functions get, as the .env files and that environment of the vault are now.

        Raises VaultError or Unreachable.
        """
        self._asked += 1
        functions = [(one.route, str(one.file), one.settings.secrets) for one in project.functions]
        public = str(project.public) if project.public else None
        question = {
            "ask": self._asked,
            "root": str(project.root),
            "functions": functions,
            "public": public,
            "environment": environment,
        }
        answer, fds = self._answer(question)
        if "error" in answer:
            raise VaultError(answer["error"], answer["hint"])
        refused = VaultError(*answer["refused"]) if answer["refused"] else None
        return Handed(Common.told(answer["common"]), fds[0], fds[1] if len(fds) > 1 else None, refused)

    def pass_on(self, visitor: int) -> None:
        """Have the vault process speak with a visitor itself. Raises Unreachable."""
        try:
            if self._channel is not None:
                self._channel.send({"visitor": True}, (visitor,))
                return
        except OSError:
            pass
        raise Unreachable

    def _answer(self, question: Message) -> tuple[Message, list[int]]:
        if self._channel is None:
            raise Unreachable
        try:
            self._channel.sock.settimeout(PATIENCE_S)
            self._channel.send(question)
            while (received := self._channel.receive()) is not None:
                if received[0].get("answer") == question["ask"]:
                    self._channel.sock.settimeout(None)
                    return received
                self._news = True
        except (OSError, ChannelError):
            pass
        self._close()
        raise Unreachable

    def heard(self) -> bool:
        """Whether the vault has changed since it was asked. Called when there is something to read."""
        assert self._channel is not None
        try:
            messages, alive = self._channel.drain()
        except ChannelError:
            messages, alive = [], False
        if not alive:
            self._close()
        news, self._news = bool(messages) or self._news, False
        return news

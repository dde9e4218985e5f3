"""The vault process: the only one of a server that has the master key. Control asks it for what functions may have."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING, Any

from lampyr.errors import VaultError
from lampyr.runtime import kernel
from lampyr.runtime.channel import Channel, ChannelError, Message
from lampyr.types import Secret
from lampyr.vault.place import Place, Stamp

if TYPE_CHECKING:
    from lampyr.vault.store import Vault

# A new value is with the functions within two seconds, of which this is the first part.
LOOK_EVERY_S = 0.25


class Keeper:
    """Answers `{"ask": number, "functions": {route: names or None}}` and says `{"changed": True}` when there is news.

    The answer is `{"answer": number, "secrets": {name: [value, functions, version]}}`, or has "error" and "hint".
    """

    def __init__(self, told: Message) -> None:
        self._where = Place.of(told["state"])
        self._environment = str(told["environment"])
        self._given: str | None = told["given"]
        self._asker: Channel | None = None
        self._stamp: Stamp = None
        self._opened: tuple[Stamp, Vault, dict[str, Secret]] | None = None
        self._handed_out: set[tuple[str, int, str]] = set()

    def run(self, supervisor: Channel) -> None:
        poll = select.poll()
        poll.register(supervisor.fileno(), select.POLLIN)
        self._hear_supervisor(supervisor, poll)  # what came along with the first message
        while True:
            for fd, _ in poll.poll(LOOK_EVERY_S * 1000 if self._asker else None):
                if fd == supervisor.fileno():
                    self._hear_supervisor(supervisor, poll)
                elif self._asker is not None and fd == self._asker.fileno():
                    self._hear_asker(self._asker, poll)
            self._look()

    def _hear_supervisor(self, supervisor: Channel, poll: select.poll) -> None:
        messages, alive = supervisor.drain()
        for _, fds in messages:
            self._forget(poll)
            self._asker = Channel.from_fd(fds[0])
            poll.register(self._asker.fileno(), select.POLLIN)
        if not alive:
            os._exit(0)

    def _hear_asker(self, asker: Channel, poll: select.poll) -> None:
        try:
            messages, alive = asker.drain()
            for message, _ in messages:
                asker.send({"answer": message["ask"], **self._answer(message["functions"])})
        except (ChannelError, OSError):
            alive = False
        if not alive:
            self._forget(poll)

    def _forget(self, poll: select.poll) -> None:
        if self._asker is not None:
            poll.unregister(self._asker.fileno())
            self._asker.close()
            self._asker = None

    def _look(self) -> None:
        """Say that the vault has changed since it was last asked for."""
        stamp = self._where.stamp()
        if self._asker is not None and stamp != self._stamp:
            self._stamp = stamp
            try:
                self._asker.send({"changed": True}, wait=False)
            except OSError:
                pass  # it is gone, which is about to be noticed, or has enough to read

    def _answer(self, functions: dict[str, list[str] | None]) -> Message:
        self._stamp = self._where.stamp()
        if not self._where.exists():
            return {"secrets": {}}  # what opens a vault is not even imported
        try:
            secrets = self._secrets(functions)
        except VaultError as error:
            return {"error": error.message, "hint": error.hint}
        granted = {name: one for name, one in secrets.items() if any(_may(one, route) for route in functions)}
        return {"secrets": {name: [one.value, one.functions, one.version] for name, one in granted.items()}}

    def _secrets(self, functions: dict[str, list[str] | None]) -> dict[str, Secret]:
        """All of them, opened anew where the file is another one. Who gets which is in the trail before it happens."""
        from lampyr.vault import audit, store
        from lampyr.vault.master import Keys

        if self._opened is None or self._opened[0] != self._stamp:
            self._opened = None
            vault = store.load(self._where, Keys(self._given))
            if vault is None:
                return {}
            self._opened = (self._stamp, vault, vault.reveal(self._environment))
        _, vault, secrets = self._opened
        if news := self._news(secrets, functions):
            with self._where.locked(alone=True):
                store.note(self._where, vault, [audit.entry("read", **one) for one in news])
            self._handed_out.update((one["name"], one["version"], one["functions"][0]) for one in news)
        return secrets

    def _news(self, secrets: dict[str, Secret], functions: dict[str, list[str] | None]) -> list[dict[str, Any]]:
        """What the trail has not heard yet: who gets which version, and who names what it may not have."""
        found = []
        for name, one in secrets.items():
            for route, names in functions.items():
                wanted = names is None or name in names
                allowed = _may(one, route)
                if wanted and (allowed or names) and (name, one.version, route) not in self._handed_out:
                    what = {"name": name, "allowed": allowed, "version": one.version}
                    found.append({**what, "environments": [self._environment], "functions": [route]})
        return found


def _may(secret: Secret, route: str) -> bool:
    return secret.functions is None or route in secret.functions


def main() -> None:
    if sys.platform == "linux":
        # No core dump, and no other process of this user reads this one's memory (prctl(2)).
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    supervisor = Channel.from_fd(int(sys.argv[1]))
    received = supervisor.receive()
    if received is not None:
        keeper = Keeper(received[0])
        keeper.run(supervisor)


if __name__ == "__main__":
    main()

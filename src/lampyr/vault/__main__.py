"""The vault process: opens the sealed file, and makes of it and the .env files what each function gets.

Of a server's processes it alone has the master key, and it alone puts environments together. What is secret in them
leaves it in parcels, which control passes on unread: one for the gateway, which masks values and starts functions with
them, and one for the broker.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampyr.build import environment, handout
from lampyr.build.brokering import Brokered
from lampyr.errors import LampyrError, VaultError
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, ChannelError, Message, introduced, parcel
from lampyr.types import PREVIEW, PRODUCTION, Function, Project, Secret, Settings
from lampyr.vault import held
from lampyr.vault.place import Place, Stamp

if TYPE_CHECKING:
    from lampyr.vault.store import Vault

# A new value is with the functions as soon as this has seen it and they have been imported.
LOOK_EVERY_S = 0.25
# Keys that somebody has announced and then not used.
MAX_ANNOUNCED = 4
# A visitor has shown the door's key, and sends one short line at once.
MAX_LINE_BYTES, PATIENCE_S = 64 * 1024, 2.0


class Keeper:
    """Answers `{"ask": number, "root": folder, "functions": [...], "public": folder, "environment": name}`.

    News is `{"changed": True}`. The environment is that of the vault: "preview", or what the server's mode is called.

    The answer is `{"answer": number, "common": {...}, "refused": [message, hint] or None}` (build.handout) and a parcel
    or two; or it has "error" and "hint". "refused" is why the vault cannot be opened any more; the values are then
    those that were in it before.
    """

    def __init__(self, told: Message, master: int) -> None:
        self._root = Path(told["root"])
        self._mode = str(told["mode"])
        self._process: dict[str, str] = told["process"]
        self._brokered = Brokered.told(told["brokered"]) if told["brokered"] else None
        self._where = Place.of(told["state"])
        self._locks = Locks(self._where, master)
        self._asker: Channel | None = None
        self._stamp: Stamp = None
        self._opened: tuple[Stamp, Vault, dict[str, dict[str, Secret]]] | None = None  # values by environment
        self._handed_out: set[tuple[str, str, int, str]] = set()

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
        for message, fds in messages:
            if "alive" in message:
                supervisor.send(message)  # so we are
                continue
            self._forget(poll)
            self._asker = Channel.from_fd(fds[0])
            poll.register(self._asker.fileno(), select.POLLIN)
        if not alive:
            os._exit(0)

    def _hear_asker(self, asker: Channel, poll: select.poll) -> None:
        try:
            messages, alive = asker.drain()
            for message, fds in messages:
                if "visitor" in message:
                    self._locks.hear(socket.socket(fileno=fds[0]))
                else:
                    self._tell(asker, message)
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

    # --- answering

    def _tell(self, asker: Channel, question: Message) -> None:
        answer: Message = {"answer": question["ask"]}
        fds: list[int] = []
        try:
            project = self._project(question)
            wanted = {one.route: one.settings.secrets for one in project.functions}
            secrets, refused = self._secrets(wanted, question["environment"])
            env = environment.read(self._root, self._mode, self._process, secrets)
            env = env.given(self._brokered_in(question["environment"]))
            answer |= {"common": handout.common(env, project).message(), "refused": refused}
            fds.append(_parcel(handout.private(env, project)))
            if self._brokered is not None:
                fds.append(_parcel(env.desk(project.functions)))
        except LampyrError as error:
            answer |= {"error": error.message, "hint": error.hint}
        try:
            asker.send(answer, tuple(fds))
        finally:
            for fd in fds:
                os.close(fd)

    def _brokered_in(self, where: str) -> Brokered | None:
        """What functions of an environment are told: the same as elsewhere, where the same keys are behind it."""
        brokered = self._brokered
        if brokered is None or where != PREVIEW or self._opened is None:
            return brokered
        _, _, values = self._opened
        here, there = values[where], values[self._mode]
        same = all(_alike(here.get(name), there.get(name)) for name in brokered.secrets)
        return brokered if same else replace(brokered, realm=where)

    def _project(self, question: Message) -> Project:
        """As much of the project as environments depend on."""
        functions = [
            Function(
                route=route,
                parts=(),
                file=Path(file),
                methods=(),
                asgi=False,
                settings=Settings(secrets=None if names is None else tuple(names)),
            )
            for route, file, names in question["functions"]
        ]
        public = Path(question["public"]) if question["public"] else None
        root = Path(question["root"])
        return Project(root=root, home=self._root, app=root, public=public, functions=tuple(functions))

    # --- opening

    def _secrets(
        self, functions: Mapping[str, tuple[str, ...] | None], where: str
    ) -> tuple[dict[str, Secret], list[str] | None]:
        """What these functions may have in an environment, and why not what is in the file now. Raises VaultError.

        Who gets which is in the trail before it happens.
        """
        self._stamp = self._where.stamp()
        if not self._where.exists():
            return {}, None  # what opens a vault is not even imported
        from lampyr.vault import audit, store

        refused = self._open()
        if self._opened is None:
            return {}, refused
        _, vault, values = self._opened
        secrets = values[where]
        if refused is None and (news := self._news(secrets, functions, where)):
            with self._where.locked(alone=True):
                store.note(self._where, vault, [audit.entry("read", **one) for one in news])
            self._handed_out.update((where, one["name"], one["version"], one["functions"][0]) for one in news)
        return {name: one for name, one in secrets.items() if any(_may(one, route) for route in functions)}, refused

    def _open(self) -> list[str] | None:
        """Open the vault where it is another than before; why it cannot be. Raises VaultError where none was before."""
        if self._opened is not None and self._opened[0] == self._stamp:
            return None
        try:
            vault = self._locks.open()
            environments = {self._mode, *((PREVIEW,) if self._mode == PRODUCTION else ())}
            values = {one: vault.reveal(one) for one in environments} if vault is not None else {}
            self._opened = None if vault is None else (self._stamp, vault, values)
        except VaultError as error:
            if self._opened is None:
                raise
            return [error.message, error.hint]
        return None

    def _news(
        self, secrets: Mapping[str, Secret], functions: Mapping[str, tuple[str, ...] | None], where: str
    ) -> list[dict[str, Any]]:
        """What the trail has not heard yet: who gets which version, and who names what it may not have."""
        found = []
        for name, one in secrets.items():
            for route, names in functions.items():
                wanted = names is None or name in names
                allowed = _may(one, route)
                if wanted and (allowed or names) and (where, name, one.version, route) not in self._handed_out:
                    what = {"name": name, "allowed": allowed, "version": one.version}
                    found.append({**what, "environments": [where], "functions": [route]})
        return found


class Locks:
    """The master keys that may open the vault: the one that does, and those that a rotation has announced."""

    def __init__(self, where: Place, master: int) -> None:
        self._where = where
        self._master = master  # the file that holds them (held)

    def open(self) -> Vault | None:
        """The vault, opened with the newest key that fits. Raises VaultError."""
        from lampyr.vault import store
        from lampyr.vault.master import Keys

        texts = held.texts(self._master)
        for text in reversed(texts[1:]):
            try:
                vault = store.load(self._where, Keys(text))
            except VaultError:
                continue
            held.put(self._master, [text])
            return vault
        return store.load(self._where, Keys(texts[0]))

    def hear(self, visitor: socket.socket) -> None:
        """Take the key that somebody who is about to rotate announces: `{"master": text, or null for the key file}`."""
        visitor.settimeout(PATIENCE_S)
        with visitor, visitor.makefile("rwb") as lines, suppress(OSError, ValueError, KeyError, TypeError):
            lines.write(b'{"version":1,"result":"the vault process"}\n')
            lines.flush()
            told = json.loads(lines.readline(MAX_LINE_BYTES))["master"]
            if told is None or (isinstance(told, str) and "\0" not in told):
                first, *announced = held.texts(self._master)
                held.put(self._master, [first, *announced[1 - MAX_ANNOUNCED :], told])
                lines.write(b'{"version":1,"result":true}\n')
                lines.flush()


def _alike(one: Secret | None, other: Secret | None) -> bool:
    """The same value for the same functions."""
    if one is None or other is None:
        return one is other
    return (one.value, one.functions) == (other.value, other.functions)


def _may(secret: Secret, route: str) -> bool:
    return secret.functions is None or route in secret.functions


def _parcel(content: object) -> int:
    return parcel(json.dumps(content, separators=(",", ":")).encode())


def main() -> None:
    sandbox.close_memory()
    supervisor, told, fds = introduced()
    Keeper(told, fds[0]).run(supervisor)


if __name__ == "__main__":
    main()

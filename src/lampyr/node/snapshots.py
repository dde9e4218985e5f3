"""Snapshots as the gateway sees them: the base, and the processes that have imported one function each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lampyr.core import endings
from lampyr.node import ends, isolation
from lampyr.node.forks import Ended, Forked, Forks
from lampyr.node.hatches import Hatches, is_listening
from lampyr.node.limits import Beside, Fence
from lampyr.node.logs import Sink
from lampyr.node.offspring import IMPORT_TIMEOUT_S, Offspring
from lampyr.node.processes import anonymous_bytes, pid_of, send_signal
from lampyr.node.shared import Shared
from lampyr.node.shelf import Shelf
from lampyr.node.tracks import Tracks
from lampyr.runtime.channel import Channel, Message
from lampyr.runtime.stack import STACK_SIGNAL
from lampyr.runtime.users import Users

if TYPE_CHECKING:
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool

# After a failed import the next attempt waits this long, then twice as long, so that requests cannot burn a core.
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
# So long an import whose time is over may take to write where it stands.
STACK_S = 0.5
# Where the system lacks something.
MAKE_ROOM = "raise the limit of open files (`ulimit -n`) or of processes, or lower `max_instances`; it is tried again"
# What importing packages for several functions may use.
SHARED_MEMORY_MIB = 4096


class Base:
    """The base snapshot. The supervisor starts a new one when it has died and hands over its channel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[..., None]) -> None:
        self.loop = loop
        self.limits = Beside(loop, told)
        self._told = told
        self._forks: Forks | None = None
        self._waiting: list[Callable[[], None]] = []
        self._users: Users | None = None
        self._apart = False  # functions have user ids of their own, wherever these can read what they have to
        self._alike = True  # functions may have the server's own user id
        self.tracks = Tracks(loop)
        self.users_known: Callable[[], None] | None = None  # called when a base has said whether they have
        self._means_known = False
        self._pools: dict[int, list[Pool]] = {}
        self._shared: dict[str, Shared] = {}
        self.shelf = Shelf()
        self.hatches = Hatches()
        self._warned = False
        self.ports: list[int] = []  # on which the gateway listens

    def connect(self, channel: Channel) -> None:
        forks = self._forks = Forks(self.loop, channel, self._hear, lambda: self._gone(forks))
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            start()

    def _hear(self, message: Message) -> None:
        """The first thing a base says is which of the sandbox's means it has found."""
        means = message.get("means")
        if means is None:
            return
        self._alike = not (means["room"] and means["users"])
        self._apart = bool(means["users"])
        self._means_known = True
        if self.users_known is not None:
            self.users_known()
        if not self._warned:
            self._warned = True
            lacking = isolation.lacking(means, self.limits.missing, told=ends.answers())
            if lacking:
                self._told(f"warning: isolation falls short: {lacking} (`lampyr doctor` says more)", None)

    def _gone(self, forks: Forks) -> None:
        if self._forks is forks:  # and not the one after it, if its end is heard only now
            self._forks = None

    @property
    def alive(self) -> bool:
        return self._forks is not None

    def fork(self, message: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool:
        return self._forks is not None and self._forks.order(message, fds, forked, ended)

    def place(self, route: str, tmp: str) -> Message:
        """What a function of its own has to have: a user id and a folder; and what it must never see."""
        if self._users is None:
            self._users = Users(tmp)
        user = self._users.of(route)
        return {"user": user, "tmp": f"{tmp}/{user}", "hidden": [os.path.dirname(tmp)], "ports": self.ports}

    def tell(self, text: str, function: str | None = None, id: str | None = None) -> None:
        """Say something in the log, about a function perhaps, or an invocation."""
        self._told(text, function, id)

    def add(self, pool: Pool, user: int) -> None:
        """Note whose processes `user` has; until they are gone."""
        self._pools.setdefault(user, []).append(pool)

    def remove(self, pool: Pool, user: int) -> None:
        self._pools[user].remove(pool)

    def pools_of(self, user: int) -> list[Pool]:
        """Those of the function with that user id: of two deployments, for a while."""
        return list(self._pools.get(user, ()))

    def end_parked(self) -> bool:
        """The system has nothing left: let go of all processes that nobody needs yet. Whether there were any."""
        let_go = [pool.parking.end() for pools in self._pools.values() for pool in pools]
        return any(let_go)

    def users(self, routes: Iterable[str]) -> dict[str, list[int]] | None:
        """The user ids that each function may have; nothing while no base has said it."""
        if not self._means_known or self._users is None:
            return None
        ours = [os.geteuid()] if self._alike else []
        return {route: [*([self._users.of(route)] if self._apart else []), *ours] for route in routes}

    def alike(self, user: int) -> list[Pool]:
        """Those whose processes may have `user` as anybody else may: all, where functions have no ids of their own."""
        everybody = self._alike and user == os.geteuid()
        return [pool for pools in self._pools.values() for pool in pools] if everybody else []

    def when_connected(self, start: Callable[[], None]) -> None:
        self._waiting.append(start)

    def parent_of(self, spec: Message, sink: Callable[[str], Sink]) -> Base | Shared:
        """Who forks the snapshot of a function: the shared snapshot of its packages, where it has one, or the base.

        `spec["shared"]` has "key", "packages", "env" and the names of the variables that are "private" to functions.
        """
        shared = spec.pop("shared", None)
        if not shared or self._users is None:
            return self
        found = self._shared.get(shared["key"])
        if found is None:
            places = {name: spec[name] for name in ("root", "project_paths", "site", "isolated", "hidden")}
            what = {
                **places,
                "packages": shared["packages"],
                "memory_mib": SHARED_MEMORY_MIB,
                "user": self._users.of(f"shared {shared['key']}"),
                "users": self._users.range,
            }
            found = self._shared[shared["key"]] = Shared(
                self, shared["key"], what, shared["env"], frozenset(shared["private"]), sink
            )
        found.users += 1
        return found

    def forget(self, key: str) -> None:
        """Nobody needs this shared snapshot any more."""
        del self._shared[key]


class Snapshot:
    """The process that has imported one function: absent until needed, back from the base after a death.

    `state` is "absent", "importing", "ready" or "failed"; `failure` says why it failed (see runtime.load.failure).
    """

    def __init__(
        self,
        base: Base,
        spec: Message,
        env: dict[str, str],
        sink: Callable[[str], Sink],
        changed: Callable[[], None],
        parked: Callable[[], bool],
        max_instances: int,
    ) -> None:
        spec = dict(spec)
        self._parent = base.parent_of(spec, sink)
        self._shelf = base.shelf
        self._hatches = base.hatches
        self._hatch = 0  # the number of its hatch, where it has one
        self._loop = base.loop
        self._spec = spec
        self._env = env
        self._sink = sink
        self._changed = changed
        self._parked = parked  # whether one of its children waits for nobody yet (node/parking.py)
        self._process: Offspring | None = None
        self.own_bytes = 0  # memory that it shared with no other process when it was ready; 0 while it is not
        self._retry_s = FIRST_RETRY_S
        self._retry_at = 0.0
        self._died = False  # while it was importing, since it was ready last
        self._shown = False  # where its import is
        self.scarce = False  # it failed because the system lacks something, and not for a fault of its own
        self.let = False  # it is absent because there was no room, and comes back only when somebody needs it
        self.state: Literal["absent", "importing", "ready", "failed"] = "absent"
        self.failure: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.fence = Fence(base.limits, spec["route"], str(spec["user"]), spec["memory_mib"], max_instances)

    @property
    def root(self) -> str:
        """The folder of its project's files."""
        return str(self._spec["root"])

    def wanted(self) -> None:
        """Someone needs an instance: import the function if that has not been done or may be tried again."""
        if self.state == "absent" or (self.state == "failed" and self._loop.time() >= self._retry_at):
            self._import()

    def _import(self) -> None:
        self.state = "importing"
        self.let = self.scarce = self._shown = False
        try:
            self._process = self._ordered()
        except OSError as error:  # of the server's own: no descriptors, or a state folder that it may not write
            self._fail_scarce(str(error))
            return
        if not self._process.ordered:
            self._import_later()

    def _ordered(self) -> Offspring:
        """Its process, which may have found nobody to fork it. Raises OSError."""
        _make_tmp(self._spec)
        return Offspring(
            self._loop,
            self._parent,
            self._spec,
            self._env,
            self.fence,
            self._sink,
            told=self._told,
            lost=self._gone,
            overdue=self._stuck,
            hatch=self._offered,
        )

    def _import_later(self) -> None:
        """There is nobody who could fork it; the next one will."""
        self._drop()
        try:
            self._parent.when_connected(self._import)
        except OSError as error:
            self._fail_scarce(str(error))

    def _told(self, message: Message) -> None:
        if self.state == "importing" and "ready" in message:
            assert self._process is not None
            self._settle("ready")
            files = message.get("files")
            files = [str(file) for file in files] if isinstance(files, list) else []
            self.facts = {"files": files, "warnings": message.get("warnings")}
            self._retry_s = FIRST_RETRY_S
            self._died = False
            self.fence.imported()
            self.own_bytes = self._process.own_bytes
            self._shelf.put(self, self.own_bytes)
            self._changed()
        elif self.state == "importing" and "failed" in message:
            failure = {"line": None, "message": "", "traceback": "", **_well_formed(message["failed"])}
            if not failure.get("hint") and (met := self.fence.met_at_import()) is not None:
                failure["hint"] = ": ".join(met)
            self._fail(failure)

    def _offered(self, fd: int) -> bool:
        """The first it offers, before it imports anything; what the user's code offers later is nobody's."""
        wanted = self.state == "importing" and not self._hatch and self._spec.get("network") == "broker"
        if wanted and is_listening(fd):
            self._hatch = self._hatches.open(self._spec["route"], fd)
            return True
        return False

    def _stuck(self) -> None:
        self._shown = False  # where it stood at somebody's deadline was earlier
        self.print_stack()
        self._loop.call_later(STACK_S, self._end_stuck, self._process)

    def _end_stuck(self, process: Offspring | None) -> None:
        if self._process is not process or self.state != "importing":
            return
        message = f"the import did not finish within {IMPORT_TIMEOUT_S:.0f} s"
        self._fail_dead(message, endings.ENDLESS)

    def _gone(self) -> None:
        if self.state == "importing":
            assert self._process is not None
            if self._process.lacked:
                self._fail_scarce(self._process.lacked)
                return
            self._process.exit.ask(partial(self._died_importing, self._process))
        elif self.state == "ready":
            self._settle("absent")
            self._drop()
            self._changed()

    def _died_importing(self, process: Offspring, status: int | None) -> None:
        """`status` is None where it was never forked, or nobody knows."""
        if self._process is not process or self.state != "importing":
            return
        if process.lacked:
            self._fail_scarce(process.lacked)
        elif process.pidfd < 0 and not self._parent.alive:
            self._import_later()
        elif (met := self.fence.met_at_import()) is not None:
            self._fail_dead(*met)
        elif status in (None, -signal.SIGKILL) and not self._died:
            self._died = True  # perhaps somebody else has killed it
            self._drop()
            self._import()
        else:
            text = "the process ended while it was importing the function"
            text, hint = (text, "") if status is None else (f"{text}: it {endings.told(status)}", endings.hint(status))
            self._fail_dead(text, hint)

    def _fail_scarce(self, lacked: str) -> None:
        self.scarce = True
        self._retry_s = FIRST_RETRY_S / 2  # `_fail` doubles it behind the next attempt: that stays as near
        self._fail_dead(f"the server cannot make its process: {lacked}", MAKE_ROOM)

    def _fail_dead(self, message: str, hint: str) -> None:
        self._fail({"line": None, "message": message, "traceback": message + "\n", "hint": hint})

    def _fail(self, failure: dict[str, Any]) -> None:
        self._settle("failed")
        self.failure = {"file": self._spec["file"], **failure}
        self._retry_at = self._loop.time() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        self._drop()
        self._changed()

    def _settle(self, state: Literal["absent", "ready", "failed"]) -> None:
        self.state = state
        if self._process is not None:
            self._process.settled()

    def fork(self, order: Message, fds: tuple[int, ...], forked: Forked, ended: Ended) -> bool:
        """Ask for an instance. False when the snapshot has just died; it will be back when it is wanted."""
        assert self._process is not None
        self._shelf.used(self)
        return self._process.fork(order, fds, forked, ended)

    def print_stack(self) -> None:
        """Have the import write to the log where it is, once for all who wait for it."""
        if self._process is not None and self._process.pidfd >= 0 and not self._shown:
            self._shown = True
            send_signal(self._process.pidfd, STACK_SIGNAL)

    @property
    def needed(self) -> bool:
        """Whether an instance of it lives or is on its way."""
        return self._process is not None and self._process.children > self._parked()

    def let_go(self) -> None:
        """Be absent until somebody needs it again."""
        self.let = True
        self._settle("absent")
        self._drop()
        self._changed()

    def used_bytes(self, instance: Instance, exactly_from: int) -> int:
        """Memory that `instance` needs beyond what it shares with this process; 0 where that is not known."""
        if (used_bytes := self.fence.used_bytes(instance.number, exactly_from)) is not None:
            return used_bytes
        pid = instance.host_pid()
        own = pid_of(self._process.pidfd) if self._process is not None and self._process.pidfd >= 0 else 0
        return max(anonymous_bytes(pid) - anonymous_bytes(own), 0) if pid > 0 and own > 0 else 0

    def _drop(self) -> None:
        if self._hatch:
            self._hatches.shut(self._hatch)
            self._hatch = 0
        self.own_bytes = 0
        self._shelf.drop(self)
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        """Let the process go. Its instances, if any are left, end with it."""
        self._settle("absent")
        self._drop()
        if isinstance(self._parent, Shared):
            self._parent.release()


def _well_formed(failure: Message) -> Message:
    """What of a failure (runtime.load.failure) is what it should be."""
    return {name: value for name, value in failure.items() if isinstance(value, int if name == "line" else str)}


def _make_tmp(spec: Message) -> None:
    """The folder of a function's temporary files, for machines without rooms."""
    os.makedirs(spec["tmp"], mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(spec["tmp"], spec["user"], spec["user"])

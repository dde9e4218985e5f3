"""The gateway process: started by the supervisor with one channel, over which it is told everything else."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from lampyr.core.traceparent import Sampling
from lampyr.gateway import running
from lampyr.gateway.admission import Crowd
from lampyr.gateway.http import Connection, Connections
from lampyr.gateway.ids import Ids
from lampyr.gateway.log import Log
from lampyr.gateway.proxy import Proxy
from lampyr.gateway.site import Site
from lampyr.gateway.sites import Sites
from lampyr.gateway.sources import Sources
from lampyr.gateway.tracing import Tracing
from lampyr.ledger import records
from lampyr.ledger.counters import Counters
from lampyr.ledger.journal import Journal
from lampyr.ledger.records import Scaled
from lampyr.logs.writer import Writer
from lampyr.node import descriptors
from lampyr.node.pool import Pool
from lampyr.node.shelf import MIB
from lampyr.node.snapshots import Base
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, ChannelError, Message, parcel, unpack
from lampyr.version import VERSION

# A stop that takes longer than this says why.
TELL_AFTER_S = 0.3


class Gateway:
    """Holds the rooms of this process together and acts on what the supervisor and control say."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Channel) -> None:
        self.loop = loop
        self.supervisor = supervisor
        self.control: Channel | None = None
        self.log = Log(loop)
        self.base = Base(loop, self.log.platform)
        self.base.users_known = self._tell_users
        self.base.hatches.told = self._tell_hatch
        self.proxy = Proxy(self.base)
        self.connections = Connections()
        self.connections.refused = self.log.turned_away
        self.servers: list[asyncio.Server] = []
        self.tmp = ""
        self.journal: Journal | None = None
        self.counters: Counters | None = None
        self.crowd = Crowd()
        self.development = False
        self.sites = Sites(loop, self.proxy, self._site)
        self._checks: dict[int, Callable[[], None]] = {}  # what goes on once control has answered
        self._asked = 0
        self._draining = False
        loop.add_reader(supervisor.fileno(), self._hear, supervisor, self._from_supervisor)

    def _hear(self, channel: Channel, act: Callable[[Message, list[int]], None]) -> None:
        try:
            messages, alive = channel.drain()
        except ChannelError as error:
            self.log.platform(f"a message between our own processes cannot be read: {error}")
            messages, alive = [], False
        for message, fds in messages:
            act(message, fds)
        if not alive:
            self.loop.remove_reader(channel.fileno())
            if channel is self.supervisor:
                os._exit(0)  # nobody would ever end this process
            channel.close()
            if channel is self.control:  # and not one before it, whose end is heard only now
                self.control = None
                self._checked(self._asked)
                self.sites.forget_candidates()

    # --- the supervisor says

    def _from_supervisor(self, message: Message, fds: list[int]) -> None:
        if "listen" in message:
            self.tmp = message["tmp"]
            self.counters = Counters(Path(message["ledger"]) / "budgets", self.log.platform)
            self.log.sources = Sources(message["copies"], message["root"])
            self.log.keep(self._writer(message["logs"]))
            self.log.note(f"lampyr {VERSION} has started")
            self.journal = Journal(Path(message["ledger"]) / "journal", self.log.platform)
            self.base.tracks.told = partial(_keep_count, self.journal)
            if message["tracing"] is not None:
                self.proxy.tracing = Tracing(Sampling(*message["tracing"]), self.journal)
            self.development = message["development"]
            self.crowd.allow(message["max_concurrency"])
            limit = message["max_connections"]
            if message["snapshot_memory"] is not None:
                self.base.shelf.most_bytes = message["snapshot_memory"] * MIB
            ids = Ids()
            for fd in fds:
                self.loop.create_task(self._listen(socket.socket(fileno=fd), ids, limit))
        elif "base" in message:
            self.base.connect(Channel.from_fd(fds[0]))
        elif "control" in message:
            self.control = Channel.from_fd(fds[0])
            self.sites.forget_candidates()  # of the one before
            self.loop.add_reader(self.control.fileno(), self._hear, self.control, self._from_control)
            self.base.hatches.say_again()
            if self.development:
                self.proxy.freshen = self._freshen
        elif "drain" in message:
            self.loop.create_task(self._drain())

    def _writer(self, told: Message) -> Writer:
        def complain(text: str) -> None:
            self.loop.call_soon_threadsafe(self.log.platform, text)

        return Writer(Path(told["folder"]), told["size"] * MIB, told["days"], complain)

    async def _listen(self, sock: socket.socket, ids: Ids, max_connections: int) -> None:
        def accept() -> Connection:
            return Connection(self.proxy.serve, ids.new, self.connections)

        self.connections.limit = max_connections
        self.base.ports.append(sock.getsockname()[1])
        self.servers.append(await self.loop.create_server(accept, sock=sock, backlog=2048))

    async def _drain(self) -> None:
        """Take nothing new, finish what runs, leave."""
        if self._draining:
            return
        self._draining = True
        for server in self.servers:
            server.close()
        self.connections.drain()
        tell = self.loop.call_later(TELL_AFTER_S, self.log.platform, "finishing what runs; a second signal ends it")
        while self.connections.open or self._busy():
            await asyncio.sleep(0.01)
        tell.cancel()
        for pool in list(self.sites.pools()):
            pool.retire(lambda: None)  # its instances end by themselves: lifespans and atexit have their turn
        while any(pool.instances for pool in self.sites.pools()):
            await asyncio.sleep(0.005)
        self.log.close()
        os._exit(0)

    def _busy(self) -> bool:
        return any(instance.running for pool in self.sites.pools() for instance in pool.instances.values())

    # --- control says

    def _from_control(self, message: Message, fds: list[int]) -> None:
        if "deployment" in message:
            self._deploy(message["deployment"], json.loads(unpack(fds[0])))
        elif "prepare" in message:
            self._prepare(message["prepare"], json.loads(unpack(fds[0])), message["patience_s"])
        elif "switch" in message or "show" in message:
            id = message.get("switch") or message["show"]
            first = self.proxy.site is None
            done = self.sites.switch(id) if "switch" in message else self.sites.show(id)
            self._tell_control({"switched": id, "done": done})
            self._tell_ready(first)
        elif "preview" in message:
            self.sites.preview(message["preview"], json.loads(unpack(fds[0])))
            self._tell_users()
        elif "drop" in message:
            self.sites.drop(message["drop"])
        elif "forget" in message:
            self.sites.forget(message["forget"])
        elif "checked" in message:
            self._checked(message["checked"])
        elif "log" in message:
            self.log.platform(message["log"])
        elif "kept" in message:
            self.log.note(message["kept"], message["function"])
        elif "ps" in message:
            self._answer(message, running.functions(self.sites.shown, self.sites.retiring))
        elif "mask" in message:
            text = message["mask"].encode()
            self._answer(message, (self.log.masker.mask(text) if self.log.masker else text).decode(errors="replace"))

    def _answer(self, question: Message, found: object) -> None:
        self._tell_in_a_parcel({"answer": question["question"]}, found)

    def _deploy(self, deployment: Message, private: Message) -> None:
        first = self.proxy.site is None
        self.sites.deploy(deployment, private)
        self._tell_ready(first)
        self._tell_users()

    def _tell_ready(self, first: bool) -> None:
        """The first site serves."""
        if first and self.proxy.site is not None:
            # What start-up allocated lives as long as the process: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            self.supervisor.send({"ready": True})

    def _site(
        self, deployment: Message, private: Message, serving: Site | None, others: list[Site], goes_on: bool
    ) -> Site:
        # The supervisor tells of the ledger before it tells of control.
        assert self.journal is not None and self.counters is not None
        what = deployment, private, self.base, self.log, self.journal, self.counters, self.crowd, self.tmp, self._told
        site = Site(*what, serving, others, goes_on=goes_on)
        # The newest, which has the variables and secrets of now, and what previews have in their place.
        secrets = site.secrets.union(*(one.secrets for one in self.sites.all))
        self.log.masker = site.masker_of(secrets)
        return site

    def _prepare(self, deployment: Message, private: Message, patience_s: float | None) -> None:
        def judged(failures: list[dict[str, Any]]) -> None:
            if self.proxy.site is None and failures:
                self.log.flush()  # the server ends with that
            self._tell_in_a_parcel({"prepared": deployment["id"]}, failures)

        self.sites.prepare(deployment, private, patience_s, judged)
        self._tell_users()

    def _tell_users(self) -> None:
        """For the broker: whose processes have which user id."""
        if self.control is not None and (sites := self.sites.all):
            users = self.base.users(route for site in sites for route in site.pools)
            if users is not None:
                self._tell_in_a_parcel({"users": True}, users)

    def _tell_hatch(self, number: int, route: str, fd: int) -> None:
        """For the broker: where a function without a network reaches it."""
        if self.control is not None:
            self._tell_control({"hatch": number, "function": route}, (fd,) if fd >= 0 else ())

    def _told(self, pool: Pool) -> None:
        """The snapshot of `pool` has changed its state."""
        snapshot, awaiting = pool.snapshot, self.sites.coming(pool)
        if snapshot.state in ("ready", "failed"):
            self.sites.warm_next()
        if snapshot.state == "failed":
            failure = snapshot.failure
            where = f"{failure['file'] or pool.function.file}:{failure['line'] or 1}"
            hint = f"\nhint: {failure['hint']}" if failure.get("hint") else ""
            route = pool.function.route
            how = " with its new secrets, and goes on with the old ones" if awaiting else ""
            if self.proxy.site is not None:  # or the start says it when it is refused
                self.log.platform(f"error: it cannot be imported{how}: {where}: {failure['message']}{hint}", route)
            self.log.unimportable(route, failure["traceback"])
        if awaiting is not None and snapshot.state in ("ready", "failed"):
            if snapshot.state == "ready":
                self.log.platform("it has new secrets", pool.function.route)
            self.sites.settle(awaiting, pool)
        if self.control is not None and snapshot.state in ("ready", "failed"):
            facts = {name: snapshot.facts.get(name) for name in ("files", "warnings")} | {"root": snapshot.root}
            self._tell_in_a_parcel({"loaded": pool.function.route}, facts)

    def _freshen(self, then: Callable[[], None]) -> None:
        """Have control compare the disk with what is deployed; a new deployment, if any, arrives before the answer."""
        if self.control is None:
            then()
            return
        self._asked += 1
        self._checks[self._asked] = then
        self._tell_control({"check": self._asked})

    def _checked(self, upto: int) -> None:
        for number in [number for number in self._checks if number <= upto]:
            self._checks.pop(number)()

    def _tell_in_a_parcel(self, message: Message, content: object) -> None:
        """As a file, because a message that a busy control does not read at once has to be small."""
        fd = parcel(json.dumps(content, separators=(",", ":")).encode())
        self._tell_control(message, (fd,))
        os.close(fd)

    def _tell_control(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        assert self.control is not None
        try:
            self.control.send(message, fds, wait=False)
        except OSError:
            self._checked(self._asked)


def _keep_count(journal: Journal, route: str, most: int) -> None:
    journal.write(records.scaled(Scaled(int(time.time() * 1000), route, most)))


def main() -> None:
    sandbox.close_memory()
    descriptors.make_room()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    gc.set_threshold(50_000, 20, 50)
    Gateway(loop, Channel.from_fd(int(sys.argv[1])))
    loop.run_forever()


if __name__ == "__main__":
    main()

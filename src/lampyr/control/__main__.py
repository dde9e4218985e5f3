"""The control process: makes deployments and, in development, keeps them true to the disk. Traffic needs it not."""

from __future__ import annotations

import gc
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from lampyr import config
from lampyr.build.packages import Packages
from lampyr.build.scan import scan
from lampyr.build.supply import Supplier, Supply
from lampyr.control import deployment, running, thresholds, tree
from lampyr.control.bookkeeping import Bookkeeper
from lampyr.control.broker import Broker
from lampyr.control.card import Weights, card
from lampyr.control.door import Door, Reply
from lampyr.control.fetch import Fetch
from lampyr.control.gateway import Gateway
from lampyr.control.loop import Loop
from lampyr.control.otel import Exporter
from lampyr.control.problems import Problems
from lampyr.control.registry import Registry
from lampyr.control.releases import Release, Releases
from lampyr.control.saves import Saves
from lampyr.control.sealed import Sealed, Unreachable
from lampyr.control.thresholds import Notice, Thresholds
from lampyr.control.webhook import Webhook
from lampyr.core.traceparent import Sampling
from lampyr.errors import LampyrError, PackagesError, StateError
from lampyr.ledger.counters import Counters
from lampyr.runtime import sandbox
from lampyr.runtime.channel import Channel, Message, introduced, parcel, unpack
from lampyr.types import PREVIEW, Function, Project

# Between requests the disk is looked at this often, so that an import begins while the person still reaches for
# the browser.
LOOK_EVERY_S = 0.3


class Control:
    """Deploys once in production; in development whenever the disk differs from what is deployed."""

    def __init__(self, supervisor: Channel, told: Message, entrance: socket.socket, bookkeeper: Bookkeeper) -> None:
        self.supervisor = supervisor
        self._bookkeeper = bookkeeper
        self.root = Path(told["root"])
        self.mode = str(told["mode"])
        self.development = self.mode == "development"
        self.shows_tracebacks = self.development and bool(told["loopback"])
        self._loop = Loop()
        self._gateway = Gateway(self._loop, self._hear_gateway)
        self.serving: Release | None = None
        self._saves = Saves(self.root)
        self._weights = Weights()
        self._problems = Problems(self._gateway.say)
        self._sealed = Sealed(self._loop, self._hear_vault)
        self._broker = Broker(self._loop, self._hear_broker)
        self._thresholds = Thresholds(Counters(Path(told["ledger"]) / "budgets", lambda line: None))
        self._webhook = Webhook()
        self._releases: Releases | None = None
        self._way: Mapping[str, str] = told["index"]
        self._state_dir = Path(told["state"])
        self._supplier = Supplier(self._state_dir, self._way, lambda _: None)
        self._fetch: Fetch | None = None
        self._fetched: tuple[tree.State, tree.State] = {}, {}  # the disk that the last fetch was, or is, for
        self._held = 0  # the last check of the gateway that waits for the fetch
        self._first = str(told["begin"])
        if not self.development:
            registry = Registry(self._state_dir, self.root)
            self._releases = Releases(
                registry, told["url"], partial(self._copy, registry), self._gateway.send, self._take_over
            )
        self._door = Door(entrance, told["key"], self._asked, "vault", self._lead_to_the_vault)
        self._console_url = str(told["console"])
        self._brokers_at: str | None = told["broker"]

    def run(self) -> None:
        self._loop.hear(self.supervisor.fileno(), self._hear_supervisor)
        self._loop.hear(self._door.fileno(), self._door.turn)
        self._hear_supervisor()  # what came along with the first message
        while True:
            looks = self.development and self._gateway.there
            watches_ms = self._watch()
            if not self._loop.turn(LOOK_EVERY_S * 1000 if looks else watches_ms) and looks:
                self.freshen()

    def _watch(self) -> float | None:
        """Say how far budgets are used; in how many ms it is time to look again."""
        if not self._thresholds.watches or not self._gateway.there:
            return None
        self._thresholds.look(time.time(), self._say)
        while not self._webhook.problems.empty():
            self._gateway.say(self._webhook.problems.get())
        return thresholds.LOOK_EVERY_S * 1000

    def _say(self, notice: Notice) -> None:
        self._gateway.say(f"warning: {notice.line()}" if notice.is_warning() else notice.line())
        url = self.serving.settings.budget.webhook if self.serving else None
        if url is not None:  # the gateway knows the secrets, and takes them out of what leaves the machine
            self._gateway.ask({"mask": json.dumps(notice.event())}, partial(self._webhook.tell, url))

    def _hear_supervisor(self) -> None:
        messages, alive = self.supervisor.drain()
        for message, fds in messages:
            if "vault" in message:
                self._meet_vault(Channel.from_fd(fds[0]))
            elif "console" in message:
                self._door.welcome(socket.socket(fileno=fds[0]))
            elif "broker" in message:
                self._broker.connect(Channel.from_fd(fds[0]))
            elif "gateway" in message:
                self._meet_gateway(Channel.from_fd(fds[0]))
            elif "finish" in message:
                self._bookkeeper.finish()
                os._exit(0)
        if not alive:
            self._stop_fetching()
            os._exit(0)

    def _meet_vault(self, vault: Channel) -> None:
        """There is a vault process, perhaps in place of one that has died: what it says may be news."""
        self._sealed.connect(vault)
        if self.serving is not None:
            self._renew()
        elif self._gateway.there:
            self.freshen()

    def _hear_vault(self) -> None:
        if self._sealed.heard() and self.serving is not None:
            self._renew()

    def _hear_broker(self) -> None:
        for message in self._broker.heard():
            if "said" in message:
                self._gateway.send({"kept": message["said"], "function": message["function"]})

    def _meet_gateway(self, gateway: Channel) -> None:
        """There is a gateway, perhaps in place of one that has died: it gets what is deployed."""
        self._held = 0
        self._broker.shut_hatches()  # with the snapshots of the one before
        self._gateway.connect(gateway)
        if self.serving is not None:
            self._deploy(self.serving)
        if self._releases is not None and (self.serving is not None or self._releases.busy):
            self._releases.meet_gateway()
        elif self.serving is None:
            self.freshen()
        self._gateway.ask_again()

    def _hear_gateway(self) -> None:
        for message, fds in self._gateway.heard():
            self._act(message, fds)

    def _act(self, message: Message, fds: list[int]) -> None:
        if "check" in message:
            self.freshen()
            if self._fetch is not None:
                self._held = message["check"]
            else:
                self._gateway.send({"checked": message["check"]})
        elif "loaded" in message:
            facts = json.loads(unpack(fds[0]))
            self._weights.loaded(message["loaded"], facts["files"])
            self._saves.loaded(message["loaded"], facts["files"])
            self._problems.imported(message["loaded"], facts)
        elif "users" in message:
            self._broker.tell("users", fds[0])
        elif "hatch" in message:
            self._broker.hatch(message["hatch"], message["function"], fds[0] if fds else None)
        elif "prepared" in message and self._releases is not None:
            self._releases.prepared(message["prepared"], json.loads(unpack(fds[0])))
        elif "switched" in message and self._releases is not None:
            self._releases.switched(message["switched"])

    def _asked(self, request: Message, reply: Reply) -> None:
        """Somebody at the door wants something. Raises LampyrError."""
        match request.get("do"):
            case "ps":
                self._gateway.ask({"ps": True}, lambda found: reply(running.ps(found)))
            case "card":
                reply(self._card())
            case "console":
                reply({"url": self._console_url})
            case "deploy" | "deployments" | "rollback" | "promote" as do:
                if self._releases is None:
                    raise StateError("`lampyr dev` deploys at every save", "`lampyr start` keeps deployments")
                self._releases.ask(do, request, reply)
            case other:
                raise LampyrError(f"the server does not know how to {other!r}", "it may be older than this command")

    def _lead_to_the_vault(self, visitor: socket.socket) -> None:
        """Somebody has a word for the vault process that is none of ours."""
        with visitor:
            try:
                self._sealed.pass_on(visitor.fileno())
            except Unreachable:
                pass  # he sees the door shut

    def _card(self) -> Message:
        """For people. Raises LampyrError where nothing is deployed yet."""
        if self.serving is None:
            raise LampyrError("the server is starting", "ask again in a moment")
        return card(self.serving, self.root, self.mode, self._weights)

    # --- deploying

    def freshen(self) -> None:
        """Deploy if the disk is not what was deployed. A project that cannot be deployed leaves the old one serving."""
        if self._releases is not None:
            self._begin(self._releases)
            return
        saves, saved = self._saves, self._saves.look()
        if self._supplier.has_news():
            self._supplier.failed.clear()
        elif self.serving is not None and not saved:
            self._stop_fetching()
            return
        if self._fetched != saves.now:
            self._supplier.failed.clear()  # somebody has saved something: another try
        elif self._fetch is not None:
            return
        started = time.perf_counter()
        try:
            settings = config.load(self.root)
            supply = self._supplier.look(scan(self.root, settings))
            if self._fetches(supply):
                return
            project = supply.project
            saves.age(project)
            saves.tried()
            before = self.serving
            id = f"{time.time_ns() // 1_000_000:011x}"
            release = self._release(id, project, supply.packages, settings, saves.version, self.mode)
        except LampyrError as error:
            saves.tried()
            self._failed(error)
            return
        except Unreachable:
            saves.forget()  # there will be another vault process, and then another look
            return
        self._serve(release)
        self._deploy(release)
        if before is not None:
            self._problems.restart(before.settings, settings)
            self._problems.changed(release.judged)
            took_ms = (time.perf_counter() - started) * 1000
            count = len(project.functions)
            self._gateway.say(f"reloaded, {count} function{'' if count == 1 else 's'}, {took_ms:.0f} ms")
        else:
            for problem in supply.problems:
                self._gateway.say(f"error: {problem}")
            self._problems.known(release.judged)

    def _fetches(self, supply: Supply) -> bool:
        """Have what is missing installed; whether that is being done. What serves goes on serving meanwhile."""
        if not supply.missing:
            self._stop_fetching()
            return False
        self._fetched = self._saves.now
        if self._fetch is None or self._fetch.missing.keys() != supply.missing.keys():
            self._stop_fetching()
            self._fetch = Fetch(supply.missing, self._state_dir, self._way)
            self._loop.hear(self._fetch.fileno(), self._have_fetched)
        return True

    def _stop_fetching(self) -> None:
        if self._fetch is not None:
            self._loop.forget(self._fetch.fileno())
            self._fetch.stop()
            self._fetch = None

    def _have_fetched(self) -> None:
        assert self._fetch is not None
        self._loop.forget(self._fetch.fileno())
        self._supplier.failed.update(self._fetch.end())
        self._fetch = None
        self.freshen()
        if self._fetch is None:
            self._gateway.send({"checked": self._held})

    def _begin(self, releases: Releases) -> None:
        """In production: have what is written down as active served, or what is to be the first deployment."""
        if self.serving is not None or releases.busy:
            return
        try:
            releases.begin(self._first, self._failed)
        except LampyrError as error:
            self._failed(error)
        except Unreachable:
            return  # there will be another vault process, and then another look
        else:
            releases.meet_gateway()

    def _renew(self) -> None:
        """The vault may have changed: functions with another secret than before get a new snapshot."""
        if self.serving is None:
            return
        before = self.serving
        try:
            if self._releases is not None:
                release = self._releases.renew(before.id)
            else:
                id = f"{time.time_ns() // 1_000_000:011x}"
                release = self._release(
                    id, before.project, before.packages, before.settings, self._saves.version, self.mode
                )
        except LampyrError as error:
            self._failed(error)
            return
        except Unreachable:
            return
        self._serve(release)
        self._deploy(release)
        self._problems.changed(release.judged)

    def _copy(self, registry: Registry, id: str, environment: str) -> Release:
        """The deployment `id` with the variables and secrets of now. Raises LampyrError or Unreachable."""
        root = registry.folder(id)
        settings = config.load(root)
        supply = self._supplier.look(scan(root, settings, self.root))
        if supply.missing:
            files = ", ".join(sorted(one.file for one in supply.missing.values()))
            hint = "`lampyr start` installs it, and so do `deploy`, `rollback` and `promote`"
            raise PackagesError(f"what {files} of {id} asks for is not installed", hint)
        return self._release(id, supply.project, supply.packages, settings, lambda _: id, environment)

    def _release(
        self,
        id: str,
        project: Project,
        packages: Mapping[str, Packages],
        settings: config.Config,
        version_of: Callable[[Function], str],
        environment: str,
    ) -> Release:
        """What the gateway has to know. The broker knows it then as well. Raises LampyrError or Unreachable."""
        handed = self._sealed.ask(project, environment)
        self._tell_broker(project, settings, handed.desk, environment)
        message = deployment.compose(
            id,
            project,
            settings,
            handed.common,
            packages,
            broker=self._brokers_at,
            shows_tracebacks=self.shows_tracebacks,
            version_of=version_of,
        )
        if handed.refused is not None:
            self._failed(handed.refused)
        files = len(tree.files_in(project.public)) if project.public else 0
        judged, inventory = handed.common.judge(project), handed.common.inventory
        return Release(project, judged, settings, message, handed.private, inventory, files, packages)

    def _tell_broker(self, project: Project, settings: config.Config, desk: int | None, environment: str) -> None:
        """What may be spent, then who may spend it: for `project` and, in production, for what else can be called."""
        known = [*(self._releases.projects() if self._releases is not None else ()), (project, environment)]
        if self._releases is not None and self.serving is not None:
            known.append((self.serving.project, self.mode))  # last: what it says of a function holds
            settings = self.serving.settings
        terms = deployment.terms(_together([one for one, _ in known]), settings)
        self._broker.tell("terms", parcel(json.dumps(terms).encode()))
        if desk is None:
            return
        beside = [one for one, its in known if its == environment]
        if any(one.functions != project.functions for one in beside):
            handed = self._sealed.ask(_together(beside), environment)
            os.close(handed.private)
            os.close(desk)
            assert handed.desk is not None
            desk = handed.desk
        self._broker.tell("desk", desk, environment)
        if all(its != PREVIEW for _, its in known):
            self._broker.shut_desk(PREVIEW)

    def _serve(self, release: Release) -> None:
        """This is what serves from now on."""
        self.serving = release
        self._thresholds.deployed(release.message)

    def _take_over(self, release: Release) -> None:
        """Another deployment serves from now on: what it says of its functions holds at the broker too."""
        self._serve(release)
        try:
            handed = self._sealed.ask(release.project, self.mode)
        except (LampyrError, Unreachable):
            return  # the next news of the vault brings it
        os.close(handed.private)
        self._tell_broker(release.project, release.settings, handed.desk, self.mode)

    def _deploy(self, release: Release) -> None:
        self._gateway.send({"deployment": release.message}, (release.private,))

    def _failed(self, error: LampyrError) -> None:
        if self.serving is None:
            problems = [asdict(one) for one in error.problems]
            self.supervisor.send({"refused": error.message, "hint": error.hint, "problems": problems})
            return
        for problem in error.problems:
            self._gateway.say(f"error: {problem}")
        if not error.problems:
            self._gateway.say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))


def _together(projects: Sequence[Project]) -> Project:
    """All their functions; of two with one route the one of the last. Their files have no other root in common."""
    functions = {one.route: one for each in projects for one in each.functions}
    return replace(projects[0], root=Path("/"), public=None, functions=tuple(functions.values()))


def _exporter(told: Message) -> Exporter | None:
    """The thread that sends spans, where somebody wants them."""
    if told["tracing"] is None:
        return None
    os.environ.update(told["otel"])
    exporter = Exporter(Sampling(*told["tracing"]), Path(told["root"]).name)
    exporter.start()
    return exporter


def main() -> None:
    sandbox.close_memory()
    gc.set_threshold(50_000, 20, 50)  # rows of the ledger are thousands of tuples at a time, in no rings
    supervisor, told, fds = introduced()
    bookkeeper = Bookkeeper(Path(told["ledger"]), told["ledger_days"], _exporter(told))
    bookkeeper.start()
    Control(supervisor, told, socket.socket(fileno=fds[0]), bookkeeper).run()


if __name__ == "__main__":
    main()

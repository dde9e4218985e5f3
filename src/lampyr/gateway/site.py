"""What is deployed at this moment: routes, pools, files, secrets to mask. A new deployment is a new site."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from lampyr.core.masking import Masker
from lampyr.core.routing import Router
from lampyr.gateway.admission import Admission, Crowd
from lampyr.gateway.budgets import allowances
from lampyr.gateway.exchange import Lines
from lampyr.gateway.log import Log
from lampyr.gateway.metering import Book
from lampyr.gateway.static import Files
from lampyr.gateway.voice import Voice
from lampyr.ledger.counters import Counters
from lampyr.ledger.journal import Journal
from lampyr.node.instance import Instance
from lampyr.node.logs import Sink
from lampyr.node.pool import Pool
from lampyr.node.snapshots import Base
from lampyr.runtime.channel import Message
from lampyr.types import Function, Problem, Settings


class Site:
    """Immutable but for its pools. `shows_tracebacks`: development on loopback only (SPEC 3)."""

    def __init__(
        self,
        message: Message,
        base: Base,
        log: Log,
        journal: Journal,
        counters: Counters,
        crowd: Crowd,
        tmp: str,
        told: Callable[[Pool], None],
        before: Site | None,
    ) -> None:
        self.id: str = message["id"]
        self.log = log
        self.crowd = crowd
        self.shows_tracebacks: bool = message["shows_tracebacks"]
        self.masker = Masker(message["secrets"])
        self.files = Files(Path(message["public"])) if message["public"] else None
        self.env_js: bytes = message["env_js"].encode()
        self.trusted: list[IPv4Network | IPv6Network] = [ip_network(one) for one in message["trusted_proxies"]]
        self.functions = [_function(one) for one in message["functions"]]
        self.router = Router(self.functions)
        self.known_heads: dict[bytes, Lines] = {}  # of responses, as handlers wrote them
        self._versions: dict[str, str] = {one["route"]: one["version"] for one in message["functions"]}
        self.pools: dict[str, Pool] = {}
        budgets = {
            one.route: allowances(one.route, one.settings.budget, message["budgets"], counters)
            for one in self.functions
        }
        self.books = {one.route: Book(journal, one.route, self.id, budgets[one.route]) for one in self.functions}
        known = before.admissions if before else {}
        self.admissions: dict[str, Admission] = {
            one.route: Admission(one.settings, budgets[one.route], known.get(one.route)) for one in self.functions
        }
        for function, one in zip(self.functions, message["functions"], strict=True):
            old = before.pools.get(function.route) if before else None
            if old is not None and before is not None and before._versions[function.route] == one["version"]:
                self.pools[function.route] = old
            else:
                sink = partial(self._sink, function.route)
                spec = {**one["spec"], "route": function.route}
                self.pools[function.route] = Pool(function, base, spec, one["env"], tmp, sink, told)

    def _sink(self, route: str, stream: str, instance: Instance | None) -> Sink:
        return Voice(self.log, self.masker, route, stream, instance).say


def _function(message: dict[str, Any]) -> Function:
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in message["settings"].items()
    }
    problem = message["problem"]
    return Function(
        route=message["route"],
        parts=tuple(message["parts"]),
        file=Path(message["file"]),
        methods=tuple(message["methods"]),
        asgi=message["asgi"],
        settings=Settings(**settings),
        problem=Problem(**problem) if problem else None,
    )

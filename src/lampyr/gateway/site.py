"""What is deployed at this moment: routes, pools, files, secrets to mask. A new deployment is a new site."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from lampyr.core.masking import Masker
from lampyr.core.routing import Router
from lampyr.gateway.admission import Admission, Crowd
from lampyr.gateway.budgets import allowances
from lampyr.gateway.log import Log
from lampyr.gateway.metering import Book
from lampyr.gateway.reply import Replies
from lampyr.gateway.service import Service
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


class Made(NamedTuple):
    """What a pool was made of: the state of its code, its variables, and what was secret in the project then."""

    version: str
    env: dict[str, str]
    secrets: list[str]

    def like(self, other: Made) -> bool:
        return self.version == other.version and self.env == other.env


class Site:
    """Immutable but for its pools. `shows_tracebacks`: development on loopback only (SPEC 3).

    `private` is what only some may see (build.handout). A function whose code is as it was, and whose variables are
    others, goes on with its pool until that of the new values is ready: `coming` has these, where it `goes_on`. What is
    the same `before`, in what serves, or in one of the `others` keeps its pool.
    """

    def __init__(
        self,
        message: Message,
        private: Message,
        base: Base,
        log: Log,
        journal: Journal,
        counters: Counters,
        crowd: Crowd,
        tmp: str,
        told: Callable[[Pool], None],
        before: Site | None,
        others: Iterable[Site] = (),
        *,
        goes_on: bool = True,
    ) -> None:
        self.id: str = message["id"]
        self.log = log
        self.crowd = crowd
        self.shows_tracebacks: bool = message["shows_tracebacks"]
        self.files = Files(Path(message["public"])) if message["public"] else None
        self.env_js: bytes = message["env_js"].encode()
        self.trusted: list[IPv4Network | IPv6Network] = [ip_network(one) for one in message["trusted_proxies"]]
        self.functions = [_function(one) for one in message["functions"]]
        self.router = Router(self.functions)
        self.pools: dict[str, Pool] = {}
        self.coming: dict[str, Pool] = {}
        self._made: dict[Pool, Made] = {}
        self.secrets: frozenset[str]
        budgets = {
            one.route: allowances(one.route, one.settings.budget, message["budgets"], counters)
            for one in self.functions
        }
        for function, one in zip(self.functions, message["functions"], strict=True):
            route, spec = function.route, {**one["spec"], "route": function.route}
            made = Made(one["version"], private["env"][route], private["secrets"])
            old = before.pools.get(route) if before else None
            sites = (before, *others) if before else ()
            new = next((pool for site in sites if (pool := site.like(route, made))), None)
            if new is None:
                new = Pool(function, base, spec, made.env, tmp, partial(self._sink, route), told)
            self._made[new] = made
            if goes_on and before is not None and old is not None and old is not new and before.may_go_on(old, made):
                self._made[old] = before._made[old]
                self.pools[route], self.coming[route] = old, new
            else:
                self.pools[route] = new
        # What runs on with values that are old by now may still write them.
        self.secrets = frozenset(private["secrets"]).union(*(made.secrets for made in self._made.values()))
        self.masker: Masker = Masker(self.secrets) if before is None else before.masker_of(self.secrets)
        replies = Replies(self.masker)
        self.services: dict[str, Service] = {}
        for function in self.functions:
            route, known = function.route, before.services.get(function.route) if before else None
            self.services[route] = Service(
                self.pools[route],
                Admission(function.settings, budgets[route], known.admission if known else None),
                Book(journal, route, self.id, budgets[route]),
                log,
                replies,
                self.crowd,
                shows_tracebacks=self.shows_tracebacks,
            )

    @property
    def all_pools(self) -> set[Pool]:
        """Those that serve, and those that are coming."""
        return {*self.pools.values(), *self.coming.values()}

    def masker_of(self, secrets: frozenset[str]) -> Masker:
        """One that masks these: making it takes time, and mostly they are those of the deployment before."""
        return self.masker if secrets == self.secrets else Masker(secrets)

    def like(self, route: str, made: Made) -> Pool | None:
        """The pool of a function that was made of the same."""
        pools = (self.coming.get(route), self.pools.get(route))
        return next((one for one in pools if one is not None and self._made[one].like(made)), None)

    def may_go_on(self, pool: Pool, made: Made) -> bool:
        """Whether `pool` may serve until one made of `made` can: other values, the same code, nothing taken away."""
        own = self._made[pool]
        return own.version == made.version and own.env.keys() <= made.env.keys() and pool.snapshot.state != "failed"

    def take_over(self, pool: Pool) -> Pool:
        """Calls go to `pool`, which was coming; returns that to which they went before."""
        route = pool.function.route
        before, self.pools[route] = self.pools[route], self.coming.pop(route)
        self.services[route].pool = self.pools[route]
        return before

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

"""Who may call which provider: placeholders, the user ids of functions, and the keys that only this process uses."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from lampyr.core.masking import Masker
from lampyr.gateway.exchange import Exchange
from lampyr.node.ends import Ends, held_outside

# The gateway says whose a user id is before the function runs; the way of that through control takes milliseconds.
KNOWN_WITHIN_S = 5.0
# Connections of which it is remembered that they are functions' own.
MOST_INSIDE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where calls go, with what key, and which of them may be made (see config.Provider)."""

    name: str
    kind: str
    base_url: str
    secret: str | None
    key: str | None
    paths: tuple[str, ...] | None
    models: tuple[str, ...] | None
    timeout: float
    retries: int
    fallback: tuple[str, ...] = ()
    cache: float | None = None


class Refused(Exception):
    """A call that is not made: the status of its answer, the kind of error, and a sentence without any secret."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.headers = headers


class Caller(NamedTuple):
    """The function that makes a call, the provider it is for, and all that it may call."""

    route: str
    provider: Provider
    may_call: dict[str, Provider]


class Desk:
    """What control has said last."""

    def __init__(self) -> None:
        self._providers: dict[str, dict[str, Provider]] = {}  # by environment, whose keys may be others
        self._functions: dict[str, dict[str, tuple[str, frozenset[str]]]] = {}
        self._users: dict[str, list[int]] = {}  # user ids that a function may have
        self._news = asyncio.Event()
        self._ends = Ends()
        self._inside: set[int] = set()
        self.masker = Masker(())

    def told(self, message: dict[str, Any], environment: str) -> None:
        """Functions, providers and keys of an environment."""
        known = Provider.__dataclass_fields__.keys()
        found = [{name: one[name] for name in known} for one in message["providers"]]
        self._providers[environment] = {one["name"]: Provider(**one) for one in found}
        functions = message["functions"].items()
        self._functions[environment] = {token: (route, frozenset(names)) for token, (route, names) in functions}
        self.masker = Masker(one.key for one in self.providers if one.key)
        self._tell()

    @property
    def providers(self) -> list[Provider]:
        """All that there are."""
        return [one for providers in self._providers.values() for one in providers.values()]

    def told_users(self, users: dict[str, list[int]]) -> None:
        """Which user ids each function may have, its own or the server's."""
        self._users = users
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def caller(self, exchange: Exchange, name: str, function: str | None = None) -> Caller:
        """Who calls the provider `name`; `function` is the only one it can be. Raises Refused."""
        route, may_call = self._function(exchange)
        if function is not None and function != route:
            raise _not_you()
        # At once: who has gone meanwhile could not be asked any more.
        end = self._ends.find(*exchange.ends) if function is None else None
        if function is None and self._ends.asks:
            users = await self._users_of(route)
            if end is None or end.user not in users:
                raise _not_you()
            if end.user == os.geteuid() and not await self._is_inside(end.inode):
                raise _not_you()
        if name not in may_call:
            raise Refused(403, "permission_error", f"{route} may not call a provider named {name[:40]!r}.")
        return Caller(route, may_call[name], may_call)

    def others(self, caller: Caller) -> list[Provider]:
        """Who may be asked where the provider of a call does not answer."""
        found = (caller.may_call.get(name) for name in caller.provider.fallback)
        return [one for one in found if one is not None and (one.key or not one.secret)]

    def _function(self, exchange: Exchange) -> tuple[str, dict[str, Provider]]:
        """The function whose placeholder this is, and whom it may call."""
        tokens = {value.decode("latin-1") for key, value in exchange.headers if key in (b"x-api-key", b"api-key")}
        for key, value in exchange.headers:
            if key == b"authorization":
                tokens.add(value.decode("latin-1").removeprefix("Bearer "))
        token = tokens.pop() if len(tokens) == 1 else ""
        for environment, functions in self._functions.items():
            if (function := functions.get(token)) is not None:
                route, names = function
                return route, {name: one for name, one in self._providers[environment].items() if name in names}
        raise _not_you()

    async def _is_inside(self, inode: int) -> bool:
        """Whether no program that the server's user runs elsewhere has this socket; said once for each connection."""
        if inode not in self._inside:
            if await asyncio.to_thread(held_outside, inode, os.getppid()):
                return False
            if len(self._inside) >= MOST_INSIDE:
                self._inside.clear()
            self._inside.add(inode)
        return True

    async def _users_of(self, route: str) -> list[int]:
        try:
            async with asyncio.timeout(KNOWN_WITHIN_S):
                while route not in self._users:
                    await self._news.wait()
        except TimeoutError:
            raise Refused(503, "api_error", "The broker does not know the function yet.") from None
        return self._users[route]


def _not_you() -> Refused:
    return Refused(
        401, "authentication_error", "This placeholder is none of a function that is calling; it opens nothing here."
    )

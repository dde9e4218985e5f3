"""What functions are told of the broker: its address and a placeholder for each key that stays away from them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lampyr.config import Provider

_SDKS = {
    "openai": "OPENAI",
    "openai-compatible": "OPENAI",
    "local": "OPENAI",
    "echo": "OPENAI",
    "anthropic": "ANTHROPIC",
}
_HERE = ("local", "echo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokered:
    """The providers of a project, and where the broker of this run of the server is.

    `key`, in hex, is what its placeholders are made from: they hold as long as the server runs, whatever is restarted.
    """

    address: str
    key: str
    providers: tuple[Provider, ...]

    @classmethod
    def told(cls, message: Mapping[str, Any]) -> Brokered:
        """What `message` has made a message of."""
        providers = tuple(Provider(**_frozen(one)) for one in message["providers"])
        return cls(address=message["address"], key=message["key"], providers=providers)

    def message(self) -> dict[str, Any]:
        """For another process of ours."""
        return asdict(self)

    @property
    def elsewhere(self) -> tuple[Provider, ...]:
        """Those that the broker calls; the others answer on this machine."""
        return tuple(one for one in self.providers if one.kind not in _HERE)

    @property
    def secrets(self) -> frozenset[str]:
        """The variables that no function gets."""
        return frozenset(one.secret for one in self.elsewhere if one.secret)

    @property
    def names(self) -> frozenset[str]:
        """The variables that a function may get instead."""
        return frozenset(self.variables("", self.elsewhere))

    def token(self, route: str) -> str:
        """The placeholder of a function."""
        return "lampyr-" + hmac.digest(bytes.fromhex(self.key), route.encode(), "sha256").hex()[:40]

    def variables(self, route: str, providers: Iterable[Provider]) -> dict[str, str]:
        """What a function that may call `providers` gets: by their names, and the first of a kind as its SDK asks."""
        found: dict[str, str] = {}
        for one in providers:
            names = {one.name.upper().replace("-", "_")}
            if one is self._first(_SDKS[one.kind]):
                names.add(_SDKS[one.kind])
            for name in names:
                found.setdefault(f"{name}_BASE_URL", f"{self.address}/{one.name}")
                found.setdefault(f"{name}_API_KEY", self.token(route))
        return found

    def _first(self, sdk: str) -> Provider | None:
        return next((one for one in self.providers if _SDKS[one.kind] == sdk), None)

    def desk(self, values: Mapping[str, str], allowed: Mapping[str, Callable[[Provider], bool]]) -> dict[str, Any]:
        """What the broker has to know. `values` hold the keys; `allowed` says by route whom a function may call."""
        return {
            "providers": [{**asdict(one), "key": values.get(one.secret or "")} for one in self.elsewhere],
            "functions": {
                self.token(route): [route, [one.name for one in self.elsewhere if may(one)]]
                for route, may in allowed.items()
            },
        }


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON has made lists of."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def of(providers: Iterable[Provider], address: str, key: str) -> Brokered | None:
    """None where every provider answers on this machine, so that there is nothing to be a broker for."""
    found = Brokered(address=address, key=key, providers=tuple(providers))
    return found if found.elsewhere else None

"""What functions are told of the broker: its address and a placeholder for each key that stays away from them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lampyr.config import Provider

# Which SDKs a kind of provider is for, by the variables that they read.
_SDKS = {
    "openai": ("OPENAI",),
    "openai-compatible": ("OPENAI",),
    "local": ("OPENAI",),
    "echo": ("OPENAI", "ANTHROPIC"),
    "anthropic": ("ANTHROPIC",),
}
_HERE = ("local", "echo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokered:
    """The providers of a project, and where the broker of this run of the server is.

    `key`, in hex, is what its placeholders are made from: they hold as long as the server runs, whatever is restarted.
    `here` says of each model process on this machine, by provider, where it listens; it wants `model_key`. Functions of
    another `realm` have placeholders of their own: other keys stand behind them.
    """

    address: str
    key: str
    providers: tuple[Provider, ...]
    here: Mapping[str, str] = field(default_factory=dict)
    realm: str = ""

    @classmethod
    def told(cls, message: Mapping[str, Any]) -> Brokered:
        """What `message` has made a message of."""
        providers = tuple(Provider(**_frozen(one)) for one in message["providers"])
        return cls(address=message["address"], key=message["key"], providers=providers, here=message["here"])

    def message(self) -> dict[str, Any]:
        """For another process of ours."""
        return asdict(self)

    @property
    def elsewhere(self) -> tuple[Provider, ...]:
        """Those that are not on this machine."""
        return tuple(one for one in self.providers if one.kind not in _HERE)

    @property
    def secrets(self) -> frozenset[str]:
        """The variables that no function gets."""
        return frozenset(one.secret for one in self.elsewhere if one.secret)

    @property
    def names(self) -> frozenset[str]:
        """The variables that a function may get instead."""
        return frozenset(self.variables("", self.providers))

    @property
    def model_key(self) -> str:
        """What model processes want to see: they answer the broker and nobody else."""
        return self._derived("model")

    def token(self, route: str) -> str:
        """The placeholder of a function."""
        return "lampyr-" + self._derived(self.realm + route)

    def _derived(self, name: str) -> str:
        return hmac.digest(bytes.fromhex(self.key), name.encode(), "sha256").hex()[:40]

    def variables(self, route: str, providers: Iterable[Provider]) -> dict[str, str]:
        """What a function that may call `providers` gets: by their names, and the first of a kind as its SDK asks."""
        found: dict[str, str] = {}
        for one in providers:
            first, *more = _SDKS[one.kind]
            names = [(one.name.upper().replace("-", "_"), first), *((sdk, sdk) for sdk in (first, *more))]
            for name, sdk in names:
                if name != sdk or one is self._first(sdk):
                    found.setdefault(f"{name}_BASE_URL", self._url(one, sdk))
                    found.setdefault(f"{name}_API_KEY", self.token(route))
        return found

    def _url(self, provider: Provider, sdk: str) -> str:
        """OpenAI's SDK wants the version in it, which is in the addresses of providers elsewhere already."""
        version = "/v1" if provider.kind in _HERE and sdk == "OPENAI" else ""
        return f"{self.address}/{provider.name}{version}"

    def _first(self, sdk: str) -> Provider | None:
        return next((one for one in self.providers if sdk in _SDKS[one.kind]), None)

    def desk(self, values: Mapping[str, str], allowed: Mapping[str, Callable[[Provider], bool]]) -> dict[str, Any]:
        """What the broker has to know. `values` hold the keys; `allowed` says by route whom a function may call."""
        return {
            "providers": [self._provider(one, values) for one in self.providers],
            "functions": {
                self.token(route): [route, [one.name for one in self.providers if may(one)]]
                for route, may in allowed.items()
            },
        }

    def _provider(self, one: Provider, values: Mapping[str, str]) -> dict[str, Any]:
        if one.kind not in _HERE:
            return {**asdict(one), "key": values.get(one.secret or "")}
        # Its model answers under any name (model/backends.py), and needs no secret of the project's.
        here = {"base_url": self.here.get(one.name), "secret": None, "models": None, "key": self.model_key}
        return {**asdict(one), **here}


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON has made lists of."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def of(providers: Iterable[Provider], address: str, key: str, here: Mapping[str, str] | None = None) -> Brokered | None:
    """None where there is nothing to be a broker for."""
    found = Brokered(address=address, key=key, providers=tuple(providers), here=here or {})
    return found if found.providers else None

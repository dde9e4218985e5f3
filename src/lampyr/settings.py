"""Every setting in one table: its name, where it stands, what it may be. Feeds the checks, --help and the docs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from lampyr import values
from lampyr.values import Kind


class Wrong(NamedTuple):
    """A value that is not allowed: what is wrong with it and what is allowed, and a hint."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `edge` is its default in the edge runtime where that differs from `default`."""

    section: str
    name: str
    kind: Kind
    default: Any
    help: str
    edge: Any = ...

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        return self.kind.allowed

    def read(self, value: object) -> Any | Wrong:
        """The value as it is kept (times as float, lists as tuples), or what is wrong with it."""
        try:
            return self.kind.read(value)
        except (TypeError, ValueError):
            near = did_you_mean(value, self.kind.choices) if isinstance(value, str) else ""
            message = f"{self.name} {self.kind.show(value)} is not allowed; allowed: {self.allowed}"
            return Wrong(message, near or self._without())

    def _without(self) -> str:
        """What holds where it is not set, as a hint."""
        if self.edge is not ...:
            return "take it out for the default of the runtime"
        if self.default is None or self.default == ():
            return f"{self.name}: {self.help}"
        default = f"{self.default:g}" if isinstance(self.default, float) else json.dumps(self.default)
        return f"take it out for the default, {default}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the word of `known` that `word` was probably meant to be; "" where none is close."""
    spellings = {name.replace("_", "").lower(): name for name in known}
    meant = spellings.get(word.replace("_", "").replace("-", "").lower())
    near = [meant] if meant else get_close_matches(word.lower(), spellings.values(), n=1, cutoff=0.75)
    return f'did you mean "{near[0]}"?' if near else ""


_FUNCTIONS = (
    (
        "runtime",
        values.choice("standard", "edge"),
        "standard",
        "standard: a strict time limit, one request per instance; edge: native streaming, no wall-clock limit",
    ),
    ("max_duration", values.seconds(1, 900, none=True), 10.0, "from admission to the last byte", None),
    (
        "first_byte_timeout",
        values.seconds(0.1, 900, none=True),
        None,
        "until the response must begin; edge only, the standard runtime has max_duration",
        25.0,
    ),
    ("concurrency", values.whole(1, 10_000), 1, "requests one instance serves at a time", 100),
    ("min_instances", values.whole(0, 10_000), 0, "instances kept ready; 0 means scale to zero"),
    ("max_instances", values.whole(1, 10_000), 100, "instances at most"),
    ("idle_timeout", values.seconds(0, 86_400), 60.0, "until an idle instance ends"),
    ("memory", values.whole(32, 1_048_576, "MiB"), 512, "memory an instance may use"),
    ("max_body", values.whole(0, 1_000_000_000_000, "bytes"), 4_500_000, "size of a request body at most"),
    ("secrets", values.variables(), None, "secrets this function may have; by default all of the project"),
    ("network", values.choice("open", "broker"), "open", "broker: no network at all except calls to providers"),
    (
        "rate_limit",
        values.rate(),
        None,
        'per client and function; by default "60/minute" on methods other than GET, HEAD and OPTIONS',
    ),
    ("budget", values.budget(), None, "refused at admission once spent"),
    ("on_disconnect", values.choice("cancel", "continue"), "cancel", "what a client that leaves does to its handler"),
    ("regions", values.regions(), None, "PoPs it is deployed to; by default all for edge"),
)
_SERVER = (
    ("host", values.text(), "127.0.0.1", "address to listen on"),
    ("port", values.whole(0, 65_535), 3000, "port to listen on; 0 picks a free one"),
    ("trusted_proxies", values.networks(), (), "proxies whose X-Forwarded-* headers are believed"),
    ("max_connections", values.whole(1, 1_000_000), 4096, "client connections open at once"),
    ("max_concurrency", values.whole(1, 1_000_000), 1000, "invocations under way at once, of all functions together"),
    (
        "stream_keepalive",
        values.seconds(0.1, 3600),
        15.0,
        "silence of an event stream until a comment line keeps it open",
    ),
    ("snapshot_memory", values.whole(16, 16_777_216), None, "MiB that snapshots may own, the latest used first"),
    ("console_port", values.whole(0, 65_535), 0, "port of the console, on loopback; 0 picks a free one"),
    ("ledger_days", values.whole(1, 36_500), 30, "days that each invocation stays in the ledger; sums stay longer"),
)
_LOGS = (
    ("size", values.whole(1, 1_048_576, "MiB"), 16, "lines of each function that are kept; the eldest go first"),
    ("days", values.whole(1, 36_500, "days"), 30, "how long lines are kept"),
)
_PROVIDERS = (
    (
        "kind",
        values.choice("openai", "anthropic", "openai-compatible", "local", "echo"),
        None,
        "the API it speaks; local is a model on this machine, echo answers deterministically for tests; by default its "
        "name where that is a kind, else openai-compatible",
    ),
    ("base_url", values.url(), None, "where it is; openai and anthropic have a default"),
    ("secret", values.variable(), None, "the secret that holds its key; openai and anthropic have a default"),
    (
        "paths",
        values.url_paths(),
        None,
        "URL paths below base_url that functions may call; by default what its kind has",
    ),
    ("models", values.texts(), None, "models that functions may ask for; by default all"),
    ("timeout", values.seconds(1, 3600), 600.0, "of one call to it"),
    ("retries", values.whole(0, 10), 2, "calls tried again before the first byte has come"),
    ("fallback", values.texts(), (), "other providers, asked in this order when this one fails before the first byte"),
    (
        "cache",
        values.duration(30),
        None,
        "how long answers to the same deterministic request of the same function are kept; by default not at all",
    ),
)
_BUDGET = (
    ("limit", values.budgets(), (), "for all functions together"),
    ("webhook", values.url(), None, "is told at 50, 80 and 100 %"),
)
_PRICES = (("machine_per_hour", values.usd(), None, "what a server that runs all day would cost, for comparison"),)
_PRICE = (
    ("input", values.usd(), 0.0, "per million tokens"),
    ("cached_input", values.usd(), None, "per million tokens; by default as input"),
    ("output", values.usd(), 0.0, "per million tokens"),
)

SETTINGS: tuple[Setting, ...] = tuple(
    Setting(section, *row)
    for section, rows in (
        ("functions", _FUNCTIONS),
        ("server", _SERVER),
        ("logs", _LOGS),
        ("providers.NAME", _PROVIDERS),
        ("budget", _BUDGET),
        ("prices", _PRICES),
        ("prices.MODEL", _PRICE),
    )
    for row in rows
)


def section(name: str) -> dict[str, Setting]:
    """The settings of one section of lampyr.toml by name, in the order of the table."""
    return {setting.name: setting for setting in SETTINGS if setting.section == name}


def defaults(name: str, edge: bool = False) -> dict[str, Any]:
    """What a section holds when nobody sets anything; `edge` for functions of that runtime."""
    return {
        setting.name: setting.edge if edge and setting.edge is not ... else setting.default
        for setting in section(name).values()
    }

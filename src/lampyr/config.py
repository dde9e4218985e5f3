"""The settings of a project: lampyr.toml, or [tool.lampyr] in pyproject.toml, read and checked."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lampyr import tomltext
from lampyr.errors import ConfigError
from lampyr.settings import Wrong, defaults, did_you_mean, section
from lampyr.types import Problem

_SECTIONS = ("server", "logs", "functions", "providers", "budget", "prices")
_PROVIDER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WELL_KNOWN = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """[server]: times in seconds, memory in MiB; `snapshot_memory` None is a quarter of the machine's."""

    host: str
    port: int
    trusted_proxies: tuple[str, ...]
    max_connections: int
    max_concurrency: int
    stream_keepalive: float
    snapshot_memory: int | None
    console_port: int
    ledger_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """[logs]: how much is kept of each function's, in MiB, and for how long."""

    size: int
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """[providers.NAME]: an AI API. `paths` and `models` None allow all that its kind has.

    `timeout` and `cache` in seconds; `cache` None keeps no answers.
    """

    name: str
    kind: str
    base_url: str | None
    secret: str | None
    paths: tuple[str, ...] | None
    models: tuple[str, ...] | None
    timeout: float
    retries: int
    fallback: tuple[str, ...]
    cache: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """[budget]: what all functions together may use (values.parse_budget reads each), and who is told."""

    limit: tuple[str, ...]
    webhook: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """[prices.MODEL]: US dollars per million tokens."""

    input: float
    cached_input: float | None
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where settings were written, so that a later complaint can name file and line."""

    file: str
    text: str
    prefix: tuple[str, ...]

    def line(self, *path: str) -> int | None:
        """The line where the key is written, or the nearest table above it."""
        return tomltext.line_of(self.text, self.prefix + path)

    def mistake(self, message: str, hint: str, *path: str) -> Problem:
        """What is wrong with the key `path`, with file, line and section."""
        table = _header(self.prefix + path[:-1])
        return Problem(file=self.file, line=self.line(*path), message=table + message, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a project. `functions` and `routes` hold only what was set, checked (see types.Settings)."""

    server: Server
    logs: Logs
    functions: Mapping[str, Any] = field(default_factory=dict)
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    budget: BudgetLimits
    machine_per_hour: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    source: Source | None = None


def load(root: Path) -> Config:
    """Read the settings of the project at `root`; defaults where there is no file.

    Raises ConfigError naming file, line and key of every mistake, and saying what is allowed.
    """
    for name, prefix in (("lampyr.toml", ()), ("pyproject.toml", ("tool", "lampyr"))):
        text = _text(root / name)
        if text is None:
            continue
        try:
            data: Any = tomltext.parse(text)
        except tomltext.TomlError as error:
            raise ConfigError(f"not valid TOML: {error}", "see https://toml.io", file=name, line=error.line) from None
        source = Source(file=name, text=text, prefix=prefix)
        for depth, key in enumerate(prefix):
            data = data.get(key, {})
            if not isinstance(data, dict):
                hint = f"write [{'.'.join(prefix)}] and its keys below"
                whole = Source(file=name, text=text, prefix=())
                _refuse([whole.mistake(f"{key} must be a table", hint, *prefix[: depth + 1])])
        return read(data, source)
    return read({}, Source(file="lampyr.toml", text="", prefix=()))


def _text(file: Path) -> str | None:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would keep us waiting, a device reading, for ever
            raise ConfigError(f"{file.name} cannot be read: it is not a regular file", "put a file in its place")
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8", "save the file as UTF-8", file=file.name, line=line) from None
    except OSError as error:
        raise ConfigError(f"{file.name} cannot be read: {error.strerror}", "check the file's permissions") from None


def read(data: Mapping[str, Any], source: Source) -> Config:
    """Check what a settings file holds. Raises ConfigError with all that is wrong."""
    check = _Check(source)
    tables = check.sections(data)
    functions = tables["functions"]
    routes = {key: value for key, value in functions.items() if key.startswith("/")}
    plain = {key: value for key, value in functions.items() if key not in routes}
    models = {key: value for key, value in tables["prices"].items() if isinstance(value, dict)}
    rest = {key: value for key, value in tables["prices"].items() if key not in models}
    config = Config(
        server=Server(**defaults("server") | check.table("server", tables["server"], "server")),
        logs=Logs(**defaults("logs") | check.table("logs", tables["logs"], "logs")),
        functions=check.table("functions", plain, "functions"),
        routes={key: check.table("functions", value, "functions", key) for key, value in routes.items()},
        providers=check.providers(tables["providers"]),
        budget=BudgetLimits(**defaults("budget") | check.table("budget", tables["budget"], "budget")),
        machine_per_hour=check.table("prices", rest, "prices").get("machine_per_hour"),
        prices={
            model: Price(**defaults("prices.MODEL") | check.table("prices.MODEL", value, "prices", model))
            for model, value in models.items()
        },
        source=source,
    )
    if check.mistakes:
        _refuse(sorted(check.mistakes, key=lambda one: one.line or 0))
    return config


def _refuse(mistakes: Sequence[Problem]) -> NoReturn:
    first = mistakes[0]
    if len(mistakes) == 1:
        raise ConfigError(first.message, first.hint, file=first.file, line=first.line)
    raise ConfigError(f"{len(mistakes)} errors", "mend what is named above", mistakes, file=first.file)


class _Check:
    """Reads tables and keeps what is wrong with them; what is wrong is left out, so that the rest is checked too."""

    def __init__(self, source: Source) -> None:
        self.mistakes: list[Problem] = []
        self._source = source

    def _wrong(self, message: str, hint: str, *path: str) -> None:
        self.mistakes.append(self._source.mistake(message, hint, *path))

    def sections(self, data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The tables of the file, each with something in it or not."""
        found: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        for key, value in data.items():
            if key not in _SECTIONS:
                allowed = ", ".join(f"[{name}]" for name in _SECTIONS)
                homes = [f"[{name}]" for name in ("server", "functions") if key in section(name)]
                near = f"{key} belongs in {' or '.join(homes)}" if homes else did_you_mean(key, _SECTIONS)
                self._wrong(f'unknown key "{key}"; allowed: {allowed}', near or "take it out", key)
            elif not isinstance(value, dict):
                self._wrong(f'"{key}" must be a table', f"write [{key}] and its keys below", key)
            else:
                found[key] = value
        return found

    def table(self, name: str, data: object, *path: str) -> dict[str, Any]:
        """The settings of one table that are allowed."""
        if not isinstance(data, dict):
            self._wrong(f'"{path[-1]}" must be a table', "write its name in brackets, and its keys below", *path)
            return {}
        known = section(name)
        checked = {}
        for key, value in data.items():
            if key not in known:
                near = did_you_mean(key, known)
                if name == "functions" and len(path) == 1 and isinstance(value, dict):
                    near = f'settings of one function stand below its route: [functions."/{key}"]'
                self._wrong(f'unknown key "{key}"; allowed: {", ".join(known)}', near or "take it out", *path, key)
                continue
            found = known[key].read(value)
            if isinstance(found, Wrong):
                self._wrong(found.message, found.hint, *path, key)
            else:
                checked[key] = found
        return checked

    def providers(self, data: Mapping[str, Any]) -> dict[str, Provider]:
        """Those of [providers]."""
        providers = {name: self._provider(name, value) for name, value in data.items()}
        for name, provider in providers.items():
            for other in provider.fallback:
                if other not in providers or other == name:
                    allowed = ", ".join(sorted(set(providers) - {name})) or "none: there is no other provider"
                    message = f'fallback names "{other}"; allowed: {allowed}'
                    hint = did_you_mean(other, providers) or "take it out"
                    self._wrong(message, hint, "providers", name, "fallback")
        return providers

    def _provider(self, name: str, data: object) -> Provider:
        path = ("providers", name)
        before = len(self.mistakes)
        if not _PROVIDER_NAME.fullmatch(name):
            what, hint = "cannot name a provider; allowed: letters, digits, - and _", "variables are called after it"
            self._wrong(f'"{name}" {what}', hint, *path)
        values = defaults("providers.NAME") | self.table("providers.NAME", data, *path)
        if values["kind"] is None:
            kinds = section("providers.NAME")["kind"].kind.choices
            values["kind"] = name if name in kinds else "openai-compatible"
        base_url, secret = _WELL_KNOWN.get(values["kind"], (None, None))
        values["base_url"] = values["base_url"] or base_url
        values["secret"] = values["secret"] or secret
        # A mistake in its kind or its URL would be told a second time.
        missing = values["kind"] == "openai-compatible" and values["base_url"] is None
        if missing and len(self.mistakes) == before:
            self._wrong("base_url is missing", f'say where "{name}" is: base_url = "https://..."', *path, "base_url")
        return Provider(name=name, **values)


def _header(path: tuple[str, ...]) -> str:
    """A table's header as it stands in the file, to begin a message with; "" at the top."""
    keys = [key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in path]
    return f"[{'.'.join(keys)}] " if keys else ""

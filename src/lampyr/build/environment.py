"""The environment of a project's functions: its .env files and the process environment, merged (SPEC 4)."""

from __future__ import annotations

import io
import json
import os
import re
import select
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dotenv.parser import Binding, parse_stream

from lampyr.build import exposed
from lampyr.build.brokering import Brokered
from lampyr.build.expansion import LoopError, expand_all
from lampyr.build.packages import Packages, packages
from lampyr.config import Provider
from lampyr.core import masks
from lampyr.errors import ConfigError
from lampyr.types import Function, Problem, Project, Secret

__all__ = ["Environment", "Packages", "env_js", "packages", "read"]

PUBLIC = "PUBLIC_"
SECRET_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
TEST = "test"
# Nothing is deployed while an environment is read.
WRITTEN_WITHIN_S = 2.0
MOST_PIPED_BYTES = 16 * 1024 * 1024

# A function gets the process environment, as it would from any server, but not what is Lampyr's own (every LAMPYR_
# name) and not the doors to the session of whoever started the server: agents that sign, service manager, desktop.
KEPT_BACK = frozenset({
    "CREDENTIALS_DIRECTORY", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GPG_AGENT_INFO", "INVOCATION_ID", "JOURNAL_STREAM",
    "KRB5CCNAME", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "MAINPID", "NOTIFY_SOCKET",
    "SSH_AGENT_PID", "SSH_ASKPASS", "SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SUDO_ASKPASS",
    "SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER", "WATCHDOG_PID", "WATCHDOG_USEC", "WAYLAND_DISPLAY",
    "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_SESSION_ID",
})  # fmt: skip

# What a process of ours needs to run at all; everything else is the functions' business.
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "NO_COLOR"),
    *("XDG_DATA_HOME", "LAMPYR_MODELS"),
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TAKE_OUT = "take it out of the vault: lampyr secrets remove"
_PUBLIC_NAME = re.compile(r"PUBLIC_\w*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What functions get in os.environ, and which of it is whose business.

    `secrets` are names in `values`; `public` is what a browser may see, and what holds a secret is not in it; `files`
    are the .env files that were read, the winning one first. `errors` keep the project from being built. `brokered` are
    the providers whose keys no function gets.
    """

    mode: str
    values: dict[str, str]
    secrets: frozenset[str]
    public: dict[str, str]
    files: tuple[Path, ...]
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    brokered: Brokered | None = None
    vault: Mapping[str, Secret] = field(default_factory=dict)

    def given(self, brokered: Brokered | None) -> Environment:
        """With what the server adds: a broker that keeps the providers' keys to itself."""
        secrets = self.secrets.union(name for name in (brokered.secrets if brokered else ()) if name in self.values)
        # What lampyr.toml has made a secret just now may be in what browsers see.
        shown = dict(_exposed(self.public, secrets - self.secrets, self.values, {}))
        return replace(
            self,
            secrets=secrets,
            public={name: value for name, value in self.public.items() if name not in shown},
            errors=(*self.errors, *(replace(problem, file="lampyr.toml") for problem in shown.values())),
            brokered=brokered,
        )

    def judge(self, project: Project) -> Project:
        """The project with the problems of its environment added to its own."""
        warnings = (*project.warnings, *self.warnings, *self._missed(project), *self._kept_away())
        errors = (*project.errors, *self.errors, *self._shown(project))
        return replace(project, errors=errors, warnings=warnings)

    def _shown(self, project: Project) -> Iterator[Problem]:
        """Files for browsers in which there is a secret."""
        if project.public is not None:
            look = exposed.Look({name: self.values[name] for name in self.secrets})
            yield from look.problems(project.root, project.public)

    def of(self, function: Function) -> dict[str, str]:
        """What one function gets: all but the secrets that it may not have, and what else holds one of those."""
        away = self._withheld(function)
        away.update(self._holders(away))
        plain = {name: value for name, value in self.values.items() if name not in away}
        return plain | self._provided(function)

    def of_nobody(self) -> dict[str, str]:
        """What a process gets that several functions come from: no secret, nor what holds one."""
        away = {*self.secrets, *self._holders(set(self.secrets)), *(self.brokered.names if self.brokered else ())}
        return {name: value for name, value in self.values.items() if name not in away}

    @property
    def private(self) -> list[str]:
        """The variables that some functions may have, and others not."""
        return sorted({*self.values, *(self.brokered.names if self.brokered else ())} - self.of_nobody().keys())

    def desk(self, functions: Iterable[Function]) -> dict[str, Any]:
        """What the broker has to know: the keys, and which function may call whom."""
        assert self.brokered is not None
        return self.brokered.desk(self.values, {one.route: partial(self.may_call, one) for one in functions})

    def may_call(self, function: Function, provider: Provider) -> bool:
        """Who may have a provider's key, if functions had any, may call it."""
        if provider.secret is None:
            return True
        sealed, named = self.vault.get(provider.secret), function.settings.secrets
        granted = sealed is None or sealed.functions is None or function.route in sealed.functions
        return granted and (named is None or provider.secret in named)

    def _provided(self, function: Function) -> dict[str, str]:
        if self.brokered is None:
            return {}
        allowed = [one for one in self.brokered.providers if self.may_call(function, one)]
        return self.brokered.variables(function.route, allowed)

    @property
    def _kept(self) -> frozenset[str]:
        """Secrets that no function gets, named or not."""
        return self.brokered.secrets & self.secrets if self.brokered else frozenset()

    def _withheld(self, function: Function) -> set[str]:
        """The secrets it does not name, and those of the vault that are for others."""
        allowed = function.settings.secrets
        away = set() if allowed is None else set(self.secrets.difference(allowed))
        others = (name for name, one in self.vault.items() if one.functions and function.route not in one.functions)
        return away.union(others, self._kept)

    def _holders(self, withheld: set[str]) -> dict[str, str]:
        """Variables in which a withheld secret is, as in a URL with a password, and which secret that is.

        What the function is granted by name it has, whatever is in it, but for the key of a provider.
        """
        granted = self.secrets - withheld
        found = {}
        for secret in sorted(withheld):
            text = self.values[secret]
            if len(text) >= masks.MIN_CHARS:
                exempt = frozenset() if secret in self._kept else granted
                holders = (name for name, value in self.values.items() if text in value and name not in exempt)
                found.update({name: secret for name in holders if name not in withheld})
        return found

    def _missed(self, project: Project) -> Iterator[Problem]:
        """What a function will look for in vain, because of its `secrets`."""
        for function in project.functions:
            file = str(function.file.relative_to(project.root))
            there = {**self.values, **self._provided(function)}
            unset = [name for name in function.settings.secrets or () if name not in there]
            if unset:
                message = f"secrets names {', '.join(unset)}, and there is no such variable"
                yield Problem(file=file, line=None, message=message, hint="set it, or take its name out of secrets")
            withheld = self._withheld(function)
            holders = self._holders(withheld - self._kept) if withheld else {}
            for name, secret in holders.items():
                message = f"the function gets no {name}: it holds the value of {secret}, which is not in its secrets"
                yield Problem(
                    file=file, line=None, message=message, hint=f"add {secret} to secrets if it may have both"
                )

    def _kept_away(self) -> Iterator[Problem]:
        """Keys of providers that nobody has set, and variables that stay away with one."""
        for one in self.brokered.elsewhere if self.brokered else ():
            if one.secret and one.secret not in self.values:
                message = f"[providers.{one.name}] has no key: there is no {one.secret}"
                yield Problem(file="lampyr.toml", line=None, message=message, hint=f"lampyr secrets set {one.secret}")
        for name, secret in self._holders(set(self._kept)).items():
            message = f"no function gets {name}: it holds the value of {secret}, which stays with the broker"
            yield Problem(file="lampyr.toml", line=None, message=message, hint=f"have functions use {secret} itself")


class _Entry(NamedTuple):
    """One assignment in a .env file, as it stands there. `literal`: in single quotes, where nothing is expanded."""

    value: str
    file: str
    line: int
    literal: bool


def ours(process: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of ours that needs none of the functions'."""
    return {name: process[name] for name in PASSED_ON if name in process}


def read(root: Path, mode: str, process: Mapping[str, str], vault: Mapping[str, Secret] | None = None) -> Environment:
    """The environment of the project at `root`. `mode` is "development" or "production"; LAMPYR_ENV=test makes it test.

    First wins: `vault`, process environment, .env.{mode}.local, .env.local, .env.{mode}, .env. In test there is neither
    vault nor .env.local. Values in files expand against the merged result. A variable set by the process, even to
    nothing, is not read from files. Raises ConfigError, which names the file and the line and never shows a value.
    """
    mode = TEST if process.get("LAMPYR_ENV") == TEST else mode
    files = [(name, _assignments(root / name, name)) for name in _names(mode)]
    found = [(name, entries) for name, entries in files if entries is not None]
    sealed = dict(vault or {}) if mode != TEST else {}
    given = {name: value for name, value in process.items() if not _is_kept_back(name)}
    shadowed = [name for name in sealed if name in given]
    given.update({name: one.value for name, one in sealed.items()})
    winning: dict[str, _Entry] = {}
    local: set[str] = set()
    for file, entries in found:
        for name, entry in entries.items():
            winning.setdefault(name, entry)
        local.update(entries if file.endswith(".local") else ())
    raw = {name: entry for name, entry in winning.items() if name not in given and not name.startswith("LAMPYR_")}
    expanded, dangling = _expand(raw, given)
    values = {**given, **expanded, "LAMPYR_ENV": mode}
    public = {name: value for name, value in values.items() if _PUBLIC_NAME.fullmatch(name)}
    local.update(sealed)
    secrets = frozenset(name for name in values if name not in public and (name in local or is_secret_name(name)))
    shown = [*_exposed(public, secrets, values, winning), *_keys(public, winning)]
    unseen = {name for name, _ in shown}
    own = {name: len(values[name]) for name in sorted(secrets & raw.keys()) if values[name]}
    return Environment(
        mode=mode,
        values=values,
        secrets=secrets,
        public={name: value for name, value in public.items() if name not in unseen},
        files=tuple(root / name for name, _ in found),
        errors=tuple(problem for _, problem in shown),
        warnings=(*_dangling(dangling, raw), *_unmasked(own, raw), *_shadowed(sealed, shadowed, winning)),
        vault=sealed,
    )


def read_file(path: Path, process: Mapping[str, str]) -> dict[str, str]:
    """What one .env file assigns, expanded against itself and the process environment. Raises ConfigError."""
    entries = _assignments(path, path.name)
    if entries is None:
        raise ConfigError(f"there is no file {path}", "name a file with NAME=value in each line")
    return _expand(entries, {name: value for name, value in process.items() if name not in entries})[0]


def is_secret_name(name: str) -> bool:
    """Whether a variable is secret by its name (SPEC 4). A name for browsers never is."""
    return name.upper().endswith(SECRET_ENDINGS) and not name.startswith(PUBLIC)


def env_js(public: Mapping[str, str]) -> str:
    """The script at /_lampyr/env.js. Safe inside <script> too: no "<" can end it, no line separator break a string."""
    text = json.dumps(dict(sorted(public.items())), ensure_ascii=True, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f"window.env = {text};\n"


def _names(mode: str) -> tuple[str, ...]:
    names = (f".env.{mode}.local", ".env.local", f".env.{mode}", ".env")
    return tuple(name for name in names if mode != TEST or name != ".env.local")


def _is_kept_back(name: str) -> bool:
    return name in KEPT_BACK or name.startswith("LAMPYR_")


# --- reading files


def _assignments(path: Path, name: str) -> dict[str, _Entry] | None:
    """What a .env file assigns, the last of several to one name; None where there is no such file."""
    text = _text(path, name)
    if text is None:
        return None
    found: dict[str, _Entry] = {}
    # As an editor on Windows saves it: its line ends are not part of a value of several lines.
    for binding in parse_stream(io.StringIO(text.replace("\r\n", "\n"))):
        line = binding.original.line + _line_ends(_leading_space(binding.original.string))
        if binding.error:
            raise _malformed(name, line, "is not NAME=value")
        if binding.key is None:
            continue
        found[binding.key] = _entry(binding, name, line)
    return found


def _text(path: Path, name: str) -> str | None:
    try:
        data = _bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror or error}"
        raise ConfigError(message, "make it a file that this user may read, or remove it") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise _malformed(name, line, "is not UTF-8", "save the file as UTF-8") from None


def _bytes(path: Path) -> bytes:
    """What is in a file, or comes through a pipe: managers of passwords put one in its place. Raises OSError."""
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read()
        if not stat.S_ISFIFO(mode):
            raise OSError("it is neither a file nor a pipe")
        data = b""
        while select.select([file], [], [], WRITTEN_WITHIN_S)[0]:
            piece = file.read(65536)
            if not piece:
                return data
            data += piece
            if len(data) > MOST_PIPED_BYTES:
                raise OSError("it is a pipe without an end")
    raise TimeoutError("it is a pipe into which nobody writes")


def _entry(binding: Binding, name: str, line: int) -> _Entry:
    """Check one assignment; its value is shown nowhere."""
    key, value = binding.key or "", binding.value
    if value is None:
        raise _malformed(name, line, "has no =")
    if not _NAME.fullmatch(key):
        raise _malformed(name, line, "does not begin with a name", "names are letters, digits and _, no digit first")
    if "\0" in value:
        raise _malformed(name, line, "holds a NUL character", "no environment can hold one; encode the value")
    written = binding.original.string.partition("=")[2].lstrip()
    return _Entry(value, name, line, literal=written.startswith("'"))


def _malformed(name: str, line: int, what: str, hint: str = "") -> ConfigError:
    hint = hint or 'write NAME=value, or NAME="value" across lines'
    return ConfigError(f"this line {what}", hint, file=name, line=line)


def _leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _line_ends(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


# --- expanding and checking


def _expand(raw: Mapping[str, _Entry], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, None]]:
    # In single quotes a dollar sign is itself, escaped or not: those who escape it are used to other tools.
    literal = {name: entry.value.replace("\\$", "$") for name, entry in raw.items() if entry.literal}
    expandable = {name: entry.value for name, entry in raw.items() if not entry.literal}
    try:
        expanded, dangling = expand_all(expandable, {**given, **literal})
    except LoopError as error:
        first = raw[error.names[0]]
        message, hint = f"variables refer to each other in a circle: {error}", "give one of them a value of its own"
        raise ConfigError(message, hint, file=first.file, line=first.line) from None
    return {name: literal[name] if name in literal else expanded[name] for name in raw}, dangling


def _dangling(names: Mapping[str, None], raw: Mapping[str, _Entry]) -> Iterator[Problem]:
    # The name that was not found stays unsaid: it may be a piece of a password with a dollar sign in it.
    for name in names:
        entry = raw[name]
        message = f"{name} refers to a variable that is not set, and has nothing in its place"
        yield Problem(file=entry.file, line=entry.line, message=message, hint="write \\$ for a dollar sign")


def _shadowed(sealed: Mapping[str, Secret], process: list[str], winning: Mapping[str, _Entry]) -> Iterator[Problem]:
    """Variables that are not used because the vault has one of that name, which wins."""
    for name in process:
        message = f"{name} is in the vault too, and the vault wins"
        yield Problem(file="process environment", line=None, message=message, hint=f"unset it, or {_TAKE_OUT} {name}")
    for name in sealed:
        if (entry := winning.get(name)) is not None:
            message = f"{name} is in the vault too, and the vault wins"
            yield Problem(
                file=entry.file, line=entry.line, message=message, hint=f"delete it here, or {_TAKE_OUT} {name}"
            )


def _unmasked(lengths: Mapping[str, int], raw: Mapping[str, _Entry]) -> Iterator[Problem]:
    """Secrets that masking cannot take, or not whole (`lengths` in characters)."""
    short = [name for name, length in lengths.items() if length < masks.MIN_CHARS]
    if short:
        message = f"too short to be masked in responses and logs: {', '.join(short)}"
        hint = f"secrets of {masks.MIN_CHARS} characters or more are masked"
        yield Problem(file=raw[short[0]].file, line=None, message=message, hint=hint)
    for name in (name for name, length in lengths.items() if length > masks.MAX_CHARS):
        message = f"{name} is too long: its first {masks.MAX_CHARS} characters are masked, the rest is not"
        yield Problem(file=raw[name].file, line=raw[name].line, message=message, hint="keep it in a file")


def _keys(public: Mapping[str, str], winning: Mapping[str, _Entry]) -> Iterator[tuple[str, Problem]]:
    """PUBLIC_ variables that look like a provider's key, whatever they are called."""
    for name, value in public.items():
        kind = exposed.looks_like(value.encode("utf-8", "surrogateescape"))
        if kind is not None:
            entry = winning.get(name)
            yield (
                name,
                Problem(
                    file=entry.file if entry else "process environment",
                    line=entry.line if entry else None,
                    message=f"{name} holds what looks like {kind}, and browsers may see it",
                    hint=f"give it a name that does not begin with {PUBLIC}, and use it in a function",
                ),
            )


def _exposed(
    public: Mapping[str, str], secrets: frozenset[str], values: Mapping[str, str], winning: Mapping[str, _Entry]
) -> Iterator[tuple[str, Problem]]:
    """PUBLIC_ variables in which a secret is, however it is written: no browser sees them, not even in development."""
    if not public:
        return
    encoded = {name: masks.encodings(values[name]) for name in sorted(secrets)}
    for name, value in public.items():
        data = value.encode("utf-8", "surrogateescape")
        for secret, written in encoded.items():
            if any(one in data for one in written):
                entry = winning.get(name)
                problem = Problem(
                    file=entry.file if entry else "process environment",
                    line=entry.line if entry else None,
                    message=f"{name} holds the value of the secret {secret}, and browsers may see it",
                    hint=f"take the secret out of {name}, or give it a name that does not begin with {PUBLIC}",
                )
                yield name, problem

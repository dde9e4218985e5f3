"""What people do to a vault. Each act is in the audit trail before it is done, also one that is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

from lampyr.errors import UsageError, VaultError
from lampyr.types import Secret
from lampyr.vault import audit, master, store
from lampyr.vault.master import Keys, Master
from lampyr.vault.place import Place
from lampyr.vault.store import Record, Vault

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_VALUE_BYTES = 64 * 1024


class Row(NamedTuple):
    """One value of a name, in the environments that share it, as `lampyr secrets list` shows it."""

    name: str
    environments: tuple[str, ...]
    functions: tuple[str, ...] | None
    version: int
    updated_at: str


class Grant(NamedTuple):
    """Which functions may have a secret. `keep`: those that may have had it so far; else `functions` (None: all)."""

    functions: tuple[str, ...] | None = None
    keep: bool = True


def check_name(name: str) -> None:
    """Raise UsageError where `name` cannot be that of a secret."""
    if "=" in name:
        message = "a value is never given on the command line, where other processes and the shell's history see it"
        raise UsageError(message, "give the name alone; the value comes from stdin or a prompt")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a secret", "names are letters, digits and _, no digit first")
    if name.startswith("PUBLIC_"):
        raise UsageError(f"{name} cannot name a secret: browsers see what begins with PUBLIC_", "choose another name")
    if name.startswith("LAMPYR_"):
        raise UsageError(f"{name} cannot name a secret: LAMPYR_ names are Lampyr's own", "choose another name")


def check_value(name: str, value: str) -> None:
    """Raise VaultError where `value` cannot be kept. It is not shown."""
    if not value:
        raise VaultError(f"the value of {name} is empty", "pipe the value in, or type it at the prompt")
    if "\0" in value:
        raise VaultError(f"the value of {name} holds a NUL character", "no environment can hold one; encode the value")
    if len(value.encode("utf-8", "surrogateescape")) > MAX_VALUE_BYTES:
        raise VaultError(f"the value of {name} is larger than {MAX_VALUE_BYTES // 1024} KiB", "keep it in a file")


def put(
    where: Place,
    keys: Keys,
    values: Mapping[str, str],
    environments: tuple[str, ...],
    grant: Grant,
    action: str = "set",
) -> list[Row]:
    """Keep new values, all or none. Whether one is what was there before is not told: values are for writing only."""
    for name, value in values.items():
        check_name(name)
        check_value(name, value)
    done: list[Row] = []
    with _act(where, action, tuple(values)), store.changing(where, keys) as vault:
        for name, value in values.items():
            functions = _granted(vault, name, environments) if grant.keep else grant.functions
            version = vault.put(name, value, environments, functions)
            done.append(Row(name, environments, functions, version, vault.records[environments[0], name].updated_at))
        audit.append(where, [_entry(action, one) for one in done])
    return done


def remove(where: Place, keys: Keys, name: str, environments: tuple[str, ...]) -> tuple[str, ...]:
    """Forget a value; returns in which environments. Raises VaultError where there is none."""
    check_name(name)
    with _act(where, "remove", (name,)), store.changing(where, keys) as vault:
        gone = vault.drop(name, environments)
        if not gone:
            raise _Unknown(
                f"there is no secret {name} for {', '.join(environments)}", "`lampyr secrets list` shows all"
            )
        audit.append(where, [audit.entry("remove", name, environments=gone)])
    return gone


def rotate(where: Place, keys: Keys, text: str | None, *, accept_older: bool = False) -> Master:
    """Give the vault a new master key: that of `text` (a key or a passphrase), or without one a new key file."""
    with _act(where, "rotate"), store.changing(where, keys, accept_older=accept_older) as vault:
        new = master.new(text)
        audit.append(where, [audit.entry("accept older" if accept_older else "rotate")])
        if text is None:
            master.write(where.next_key, new.key)
        vault.rewrap(new)
    if text is not None:
        with where.locked(alone=True):
            where.key.unlink(missing_ok=True)  # it opens nothing any more
    return new


def rows(where: Place, keys: Keys, environments: tuple[str, ...]) -> list[Row]:
    """What is in the vault, without any value."""
    with _act(where, "list"):
        vault = store.load(where, keys)
    if vault is None:
        return []

    def key(one: Record) -> tuple[str, int]:
        return one.name, one.version

    records = sorted((one for one in vault.records.values() if one.environment in environments), key=key)
    return [_row(list(same)) for _, same in groupby(records, key)]


def _row(same: list[Record]) -> Row:
    one = same[0]
    return Row(one.name, tuple(sorted(each.environment for each in same)), one.functions, one.version, one.updated_at)


def values(where: Place, keys: Keys, environment: str) -> dict[str, Secret]:
    """The plaintext of one environment, for a check by the person who may change it anyway. Raises VaultError."""
    with _act(where, "read"):
        vault = store.load(where, keys)
        return vault.reveal(environment) if vault is not None else {}


def verify(where: Place, keys: Keys) -> int:
    """The number of entries of the trail, all of them genuine. Raises VaultError."""
    vault = store.load(where, keys)
    if vault is None:
        return 0
    with where.locked(alone=False):
        return store.verify_trail(where, vault)


class _Unknown(VaultError):
    """A name that is not there: nobody's attack."""


@contextmanager
def _act(where: Place, action: str, names: tuple[str, ...] = ()) -> Iterator[None]:
    """Have the trail tell what was refused."""
    try:
        yield
    except _Unknown:
        raise
    except VaultError:
        if where.folder.is_dir():
            _tell_refused(where, [audit.entry(action, name, allowed=False) for name in names or (None,)])
        raise


def _tell_refused(where: Place, entries: list[dict[str, Any]]) -> None:
    try:
        with where.locked(alone=True):
            audit.append(where, entries)
    except VaultError:
        pass  # the first error is the one to report


def _granted(vault: Vault, name: str, environments: tuple[str, ...]) -> tuple[str, ...] | None:
    """Who may have what is there so far; all functions, where there is nothing yet."""
    there = [vault.records[one, name] for one in environments if (one, name) in vault.records]
    return max(there, key=lambda one: one.version).functions if there else None


def _entry(action: str, row: Row) -> dict[str, Any]:
    return audit.entry(action, row.name, environments=row.environments, functions=row.functions, version=row.version)

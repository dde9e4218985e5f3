"""The master key of a vault: a file that only its owner may read, a passphrase, or LAMPYR_MASTER_KEY."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lampyr.errors import VaultError
from lampyr.vault import cipher, place
from lampyr.vault.place import VARIABLE, Place

KEY, PASSPHRASE = 0, 1
MIN_PASSPHRASE_CHARS = 12


class Keys(NamedTuple):
    """Where a master key may come from, but for the key file: LAMPYR_MASTER_KEY, and a prompt for a passphrase."""

    given: str | None
    ask: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Master:
    """32 bytes, and where they come from: `kind` is KEY or PASSPHRASE; `salt` is that of the passphrase."""

    kind: int
    salt: bytes
    key: bytes = field(repr=False)


def of_text(text: str, salt: bytes) -> Master:
    """The master key in a text: 64 hex digits or 32 bytes in base64 are the key itself, all else is a passphrase."""
    key = _as_key(text)
    if key is not None:
        return Master(KEY, salt, key)
    if len(text) < MIN_PASSPHRASE_CHARS:
        message = f"the passphrase is too short: at least {MIN_PASSPHRASE_CHARS} characters"
        raise VaultError(message, f"or give a key: 64 hex digits, as `openssl rand -hex {cipher.KEY_BYTES}` prints")
    return Master(PASSPHRASE, salt, cipher.stretch(text, salt))


def new(text: str | None) -> Master:
    """Another master key: that of `text`, or one that nobody has seen yet."""
    salt = cipher.random_bytes(cipher.SALT_BYTES)
    if text is not None:
        return of_text(text, salt)
    return Master(KEY, salt, cipher.random_bytes(cipher.KEY_BYTES))


def first(where: Place, keys: Keys) -> Master:
    """The master key of a vault that is about to be made: the one given, or that of the key file, which is made."""
    if keys.given:
        return new(keys.given)
    if place.read(where.key) is None:
        write(where.key, cipher.random_bytes(cipher.KEY_BYTES))
    return Master(KEY, cipher.random_bytes(cipher.SALT_BYTES), read(where.key))


def candidates(where: Place, kind: int, salt: bytes, keys: Keys) -> Iterator[Master]:
    """What may open a vault of that kind.

    While a rotation is under way there are two key files; the vault says which is its own. Raises VaultError.
    """
    if kind == PASSPHRASE:
        phrase = keys.given or keys.ask()
        if not phrase:
            message = f"the vault {where.vault} is locked with a passphrase, and there is none"
            raise VaultError(message, f"set {VARIABLE}, or run this in a terminal")
        yield Master(PASSPHRASE, salt, cipher.stretch(phrase, salt))
    elif keys.given:
        key = _as_key(keys.given)
        if key is not None:
            yield Master(KEY, salt, key)
    else:
        files = [path for path in (where.key, where.next_key) if place.read(path) is not None]
        if not files:
            message = f"there is no master key: {where.key} does not exist, and {VARIABLE} is not set"
            raise VaultError(message, "put the key back; without it nobody can open the vault")
        for path in files:
            yield Master(KEY, salt, read(path))


def read(path: Path) -> bytes:
    """The key in a file. Raises VaultError where others may read it: then it is no secret any more."""
    data = place.read(path) or b""
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        message = f"the master key {path} may be read by others (mode {mode:04o})"
        raise VaultError(message, f"chmod 600 {path}; if others had access, `lampyr secrets rotate` as well")
    key = _as_key(data.decode("ascii", "replace").strip())
    if key is None:
        raise VaultError(f"{path} holds no master key", "put the right one back; it is 64 hex digits")
    return key


def write(path: Path, key: bytes) -> None:
    """Keep a key in a file of ours alone."""
    place.write(path, key.hex().encode() + b"\n")


def settle(where: Place, used: Master) -> None:
    """After a rotation, or one that was cut short: the key file holds the key of the vault, and no other is there."""
    if place.read(where.next_key) is None:
        return
    if read(where.next_key) == used.key:
        place.move(where.next_key, where.key)
    else:
        where.next_key.unlink()


def _as_key(text: str) -> bytes | None:
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == cipher.KEY_BYTES else None

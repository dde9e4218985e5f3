"""The trail of a vault: who did what to which name, when, and whether it was allowed. Never a value.

Each line has the hash of all before it, so that no line can be changed, left out or moved. That the last lines are not
missing is what the vault's mark knows (store.py).
"""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lampyr.errors import VaultError
from lampyr.vault import cipher, place
from lampyr.vault.place import Place

START = bytes(32)


class Head(NamedTuple):
    """How far a trail goes: lines, bytes, and the hash of all of them."""

    entries: int
    size: int
    hash: bytes


def entry(action: str, name: str | None = None, *, allowed: bool = True, **more: Any) -> dict[str, Any]:
    """What happened, without its place in the chain. `more`: "environments", "functions", "version"."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": now, "who": _who(), "action": action, "name": name, "allowed": allowed, **more}


def append(where: Place, entries: Sequence[dict[str, Any]]) -> Head:
    """Add to the trail, on disk when this returns. The caller holds the lock. Raises VaultError."""
    head = last(where)
    lines, hash = b"", head.hash
    for one in entries:
        text = _text(one)
        hash = cipher.link(hash, text)
        lines += text[:-1] + f',"hash":"{hash.hex()}"}}\n'.encode()
    place.append(where.trail, lines, head.size)
    return Head(head.entries + len(entries), head.size + len(lines), hash)


def last(where: Place) -> Head:
    """Where the trail ends, following it from its beginning. Raises VaultError where it is broken."""
    head = Head(0, 0, START)
    for head, _ in follow(where):  # noqa: B007  it is the last one that is wanted
        pass
    return head


def follow(where: Place) -> Iterator[tuple[Head, dict[str, Any]]]:
    """Every entry, and the head after it. A last line that was cut short was never acknowledged: it is not there."""
    head = Head(0, 0, START)
    data = place.read(where.trail) or b""
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        number = head.entries + 1
        text, separator, hash = line[:-1].rpartition(b',"hash":"')
        linked = cipher.link(head.hash, text + b"}")
        if not separator or hash != linked.hex().encode() + b'"}':
            raise broken(where, f"line {number} is not what was written")
        head = Head(number, head.size + len(line), linked)
        yield head, json.loads(text + b"}")


def verify(where: Place, marked: tuple[int, bytes]) -> int:
    """The number of entries, all of them genuine. `marked` is how far the trail is known to have been.

    Raises VaultError where an entry was changed, left out, moved, or is missing at the end.
    """
    entries, hash = marked
    seen = entries == 0
    count = 0
    for head, _ in follow(where):
        count = head.entries
        seen = seen or (head.entries == entries and head.hash == hash)
    if count < entries:
        raise broken(where, f"it ends after line {count}, and there have been {entries}")
    if not seen:
        raise broken(where, f"line {entries} is not what was written")
    return count


def broken(where: Place, what: str) -> VaultError:
    return VaultError(f"the audit trail {where.trail} was changed: {what}", "compare it with the newest copy you have")


def _text(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=True).encode()


def _who() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

"""The sealed file: what is in it, opened and written. docs/vault-format.md describes its bytes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lampyr.errors import VaultError
from lampyr.types import Secret
from lampyr.vault import audit, cipher, master, place
from lampyr.vault.cipher import SALT_BYTES, Broken, bind
from lampyr.vault.master import Keys, Master
from lampyr.vault.place import Place

ENVIRONMENTS = ("development", "preview", "production")

MAGIC = b"lampyr vault v1\n"
ID_BYTES = 16
_ACCEPT = "to go on with what is here, `lampyr secrets rotate --accept-older`"
HEADER_BYTES = len(MAGIC) + 1 + SALT_BYTES + ID_BYTES


@dataclass(frozen=True, slots=True)
class Record:
    """One value in one environment, as it lies in the file. `functions` None: all of the project may have it."""

    name: str
    environment: str
    version: int
    functions: tuple[str, ...] | None
    updated_at: str
    wrapped_key: bytes
    sealed: bytes


@dataclass(slots=True)
class Vault:
    """An opened vault. Values stay sealed in it until `reveal`."""

    id: bytes
    master: Master
    mark_key: bytes = field(repr=False)
    generation: int = 0
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, value: str, environments: tuple[str, ...], functions: tuple[str, ...] | None) -> int:
        """Keep a new value, under a version that the name has never had; returns that."""
        version = self.versions[name] = self.versions.get(name, 0) + 1
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for environment in environments:
            key = cipher.random_bytes(cipher.KEY_BYTES)
            where = self._bound(name, environment, version)
            sealed = cipher.seal(key, value.encode("utf-8", "surrogateescape"), where + b"value")
            wrapped = cipher.seal(_wrap_key(self.master), key, where + b"key")
            record = Record(name, environment, version, functions, now, wrapped, sealed)
            self.records[environment, name] = record
        return version

    def drop(self, name: str, environments: tuple[str, ...]) -> tuple[str, ...]:
        """Forget a value; returns in which environments there was one."""
        return tuple(one for one in environments if self.records.pop((one, name), None) is not None)

    def reveal(self, environment: str) -> dict[str, Secret]:
        """The plaintext of every secret of one environment. Raises Broken."""
        own = [record for (where, _), record in self.records.items() if where == environment]
        return {one.name: Secret(self._value(one), one.functions, one.version) for one in own}

    def rewrap(self, to: Master) -> None:
        """Seal every data key anew under another master key. Values keep theirs and are not touched."""
        for at, record in self.records.items():
            where = self._bound(record.name, record.environment, record.version) + b"key"
            key = cipher.unseal(_wrap_key(self.master), record.wrapped_key, where)
            wrapped = cipher.seal(_wrap_key(to), key, where)
            self.records[at] = Record(
                record.name, record.environment, record.version, record.functions, record.updated_at, wrapped,
                record.sealed,
            )  # fmt: skip
        self.master = to

    def _value(self, record: Record) -> str:
        where = self._bound(record.name, record.environment, record.version)
        key = cipher.unseal(_wrap_key(self.master), record.wrapped_key, where + b"key")
        return cipher.unseal(key, record.sealed, where + b"value").decode("utf-8", "surrogateescape")

    def _bound(self, name: str, environment: str, version: int) -> bytes:
        return bind(self.id, environment.encode(), name.encode(), version.to_bytes(8, "big"))


# --- reading


def needs_passphrase(where: Place) -> bool:
    """Whether the vault, if there is one, is locked with a passphrase, as far as its unverified header says."""
    return (place.read(where.vault) or b"")[len(MAGIC) : len(MAGIC) + 1] == bytes([master.PASSPHRASE])


def load(where: Place, keys: Keys) -> Vault | None:
    """The vault, verified as a whole; None where there has never been one. Raises VaultError."""
    if not where.exists():
        return None
    with where.locked(alone=False):
        return _load(where, keys)


def _load(where: Place, keys: Keys, *, accept_older: bool = False) -> Vault | None:
    data, mark = place.read(where.vault), place.read(where.mark)
    if data is None and mark is None:
        return None
    if data is None:
        message = f"the vault {where.vault} is gone, and there was one"
        raise VaultError(message, f"put the newest copy back; to begin anew, delete {where.mark} as well")
    vault = _opened(where, data, keys)
    if not accept_older:
        _check_mark(where, vault, mark)
    return vault


def _opened(where: Place, data: bytes, keys: Keys) -> Vault:
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC[:-2]):
        raise _cannot_open(where)
    if not data.startswith(MAGIC):
        raise VaultError(f"the vault {where.vault} is of another version of Lampyr", "use the Lampyr that wrote it")
    header, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    kind, salt, id = header[len(MAGIC)], header[len(MAGIC) + 1 : -ID_BYTES], header[-ID_BYTES:]
    for one in master.candidates(where, kind, salt, keys):
        try:
            return _parsed(id, one, cipher.unseal(_file_key(one), body, header))
        except Broken:
            continue
    raise _cannot_open(where)


def _parsed(id: bytes, by: Master, body: bytes) -> Vault:
    told: dict[str, Any] = json.loads(body)
    records = [_record(one) for one in told["records"]]
    return Vault(
        id=id,
        master=by,
        mark_key=base64.b64decode(told["mark_key"]),
        generation=told["generation"],
        records={(one.environment, one.name): one for one in records},
        versions=told["versions"],
    )


def _check_mark(where: Place, vault: Vault, mark: bytes | None) -> None:
    """Whether this is the newest vault that has been here. Only one that was just made has no mark yet."""
    if mark is None:
        if vault.generation > 1:
            message = f"{where.mark} is gone, and without it an old vault may pass for the newest"
            raise VaultError(message, f"put it back; {_ACCEPT}")
        return
    told = _marked(where, vault, mark)
    if vault.generation < told["generation"]:
        missing = told["generation"] - vault.generation
        message = f"the vault {where.vault} is an older copy: the latest {missing} of its changes are not in it"
        raise VaultError(message, f"put the newest back; {_ACCEPT}")


def _marked(where: Place, vault: Vault, mark: bytes) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(cipher.unseal(vault.mark_key, mark, bind(vault.id, b"mark")))
    except Broken:
        message = f"{where.mark} and the vault {where.vault} do not belong together, or one of them was changed"
        raise VaultError(message, f"put both back as they were; {_ACCEPT}") from None
    return told


def verify_trail(where: Place, vault: Vault) -> int:
    """The number of entries of the audit trail, all of them genuine and none missing. Raises VaultError."""
    mark = place.read(where.mark)
    none: dict[str, Any] = {"entries": 0, "head": ""}
    told = none if mark is None else _marked(where, vault, mark)
    return audit.verify(where, (told["entries"], bytes.fromhex(told["head"])))


def _cannot_open(where: Place) -> VaultError:
    # One sentence for everything: who tries keys or changes bytes learns nothing from the answer.
    message = f"the vault {where.vault} cannot be opened: it was changed, or this is not its master key"
    return VaultError(message, "put the newest copy back, or give the right key")


# --- writing


@contextmanager
def changing(where: Place, keys: Keys, *, accept_older: bool = False) -> Iterator[Vault]:
    """The vault, for a change that is on disk when the block ends; made where there is none. Raises VaultError.

    Others wait meanwhile; if the block raises, nothing has changed. The block writes the trail: what is in the vault is
    in the trail, even after a crash. `accept_older`: what is here is the newest from now on.
    """
    with where.locked(alone=True):
        vault = _load(where, keys, accept_older=accept_older)
        if vault is None:
            by = master.first(where, keys)
            vault = Vault(cipher.random_bytes(ID_BYTES), by, cipher.random_bytes(cipher.KEY_BYTES))
        master.settle(where, vault.master)
        if accept_older:
            _start_over(where, vault)
        else:
            verify_trail(where, vault)
        yield vault
        write(where, vault)
        master.settle(where, vault.master)


def _start_over(where: Place, vault: Vault) -> None:
    """Count on from whatever has been here; a trail that is broken is put aside."""
    mark = place.read(where.mark)
    try:
        marked = _marked(where, vault, mark)["generation"] if mark is not None else 0
    except VaultError:
        marked = 0
    vault.generation = max(vault.generation, marked)
    try:
        audit.last(where)
    except VaultError:
        place.move(where.trail, where.trail.with_name(f"audit.log.broken-{vault.generation}"))


def write(where: Place, vault: Vault) -> None:
    """Put the vault on disk as its next generation. The caller holds the lock and has written the trail before."""
    vault.generation += 1
    header = MAGIC + bytes([vault.master.kind]) + vault.master.salt + vault.id
    place.write(where.vault, header + cipher.seal(_file_key(vault.master), _body(vault), header))
    _mark(where, vault, vault.generation, audit.last(where))


def _mark(where: Place, vault: Vault, generation: int, head: audit.Head) -> None:
    """Remember the newest vault and the end of the trail. It comes after both: a crash before it loses nothing."""
    told = {"generation": generation, "entries": head.entries, "head": head.hash.hex()}
    sealed = cipher.seal(vault.mark_key, json.dumps(told).encode(), bind(vault.id, b"mark"))
    place.write(where.mark, sealed)


def note(where: Place, vault: Vault, entries: list[dict[str, Any]]) -> None:
    """Add to the trail what did not change the vault, which may be a newer one by now. The caller holds the lock."""
    mark = place.read(where.mark)
    generation = vault.generation if mark is None else _marked(where, vault, mark)["generation"]
    _mark(where, vault, max(generation, vault.generation), audit.append(where, entries))


def _body(vault: Vault) -> bytes:
    told = {
        "generation": vault.generation,
        "mark_key": _text(vault.mark_key),
        "versions": vault.versions,
        "records": [
            {
                "name": one.name,
                "environment": one.environment,
                "version": one.version,
                "functions": one.functions,
                "updated_at": one.updated_at,
                "key": _text(one.wrapped_key),
                "value": _text(one.sealed),
            }
            for _, one in sorted(vault.records.items())
        ],
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _record(told: dict[str, Any]) -> Record:
    functions = told["functions"]
    return Record(
        name=told["name"],
        environment=told["environment"],
        version=told["version"],
        functions=None if functions is None else tuple(functions),
        updated_at=told["updated_at"],
        wrapped_key=base64.b64decode(told["key"]),
        sealed=base64.b64decode(told["value"]),
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _file_key(by: Master) -> bytes:
    return cipher.derive(by.key, by.salt, b"lampyr vault v1: seal the file")


def _wrap_key(by: Master) -> bytes:
    return cipher.derive(by.key, by.salt, b"lampyr vault v1: wrap data keys")

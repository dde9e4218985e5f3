"""A vault to write to, and the few acts that most tests need."""

from __future__ import annotations

from pathlib import Path

from lampyr.vault import acts, store
from lampyr.vault.acts import Grant
from lampyr.vault.master import Keys
from lampyr.vault.place import Place

ALL = store.ENVIRONMENTS


class Kept:
    """A vault in a state directory of its own."""

    def __init__(self, state: Path, given: str | None = None) -> None:
        self.where = Place(state)
        self.keys = Keys(given)

    def put(self, name: str, value: str, *environments: str, only: tuple[str, ...] | None = None) -> int:
        return acts.put(self.where, self.keys, {name: value}, environments or ALL, Grant(only, keep=False))[0].version

    def values(self, environment: str = "production") -> dict[str, str]:
        vault = store.load(self.where, self.keys)
        return {} if vault is None else {name: one.value for name, one in vault.reveal(environment).items()}

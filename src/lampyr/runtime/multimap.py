"""A read-only list of name-value pairs in which a name may come more than once: queries and forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, overload

V = TypeVar("V")
D = TypeVar("D")


class Multimap(Generic[V]):
    """Pairs in the order they were written. `get` gives the first of a name, as URLSearchParams does (WHATWG URL 6.2).

    Length and iteration count pairs, so a repeated name is seen as often as it was written.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, V]] = ()) -> None:
        self._pairs = list(pairs)

    @overload
    def get(self, name: str) -> V | None: ...
    @overload
    def get(self, name: str, default: D) -> V | D: ...
    def get(self, name: str, default: D | None = None) -> V | D | None:
        """The first value of `name`, or `default`."""
        for own, value in self._pairs:
            if own == name:
                return value
        return default

    def getall(self, name: str) -> list[V]:
        """Every value of `name`, in order; an empty list where there is none."""
        return [value for own, value in self._pairs if own == name]

    def items(self) -> list[tuple[str, V]]:
        """Every pair, in order."""
        return list(self._pairs)

    def keys(self) -> list[str]:
        """Every name, in order, repeated where it is repeated."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[V]:
        """Every value, in order."""
        return [value for _, value in self._pairs]

    def __getitem__(self, name: str) -> V:
        for own, value in self._pairs:
            if own == name:
                return value
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(own == name for own, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Multimap) and self._pairs == other._pairs

    __hash__ = None  # type: ignore[assignment]  # as Python says it: what changes has no hash

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pairs!r})"

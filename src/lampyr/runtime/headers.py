"""Header fields: those of a request, read-only, and those of a response, with nothing in them that could end a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar, overload

D = TypeVar("D")

# RFC 9110 5.6.2 (token) and 5.5. Controls other than tab are refused too, as Node does.
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

HeaderInput: TypeAlias = "Mapping[str, str | int] | Iterable[tuple[str, str | int]] | Headers"


def field_name(name: str) -> bytes:
    """`name` as it is sent, in lower case. Raises ValueError where it is not a token (RFC 9110 5.1)."""
    if not isinstance(name, str):
        raise TypeError(f"a header name is a str, not {type(name).__name__}")
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot be a header name: letters, digits and !#$%&'*+-.^_`|~ are allowed")
    return name.lower().encode("ascii")


def field_value(value: str | int) -> bytes:
    """`value` as it is sent. Raises ValueError for what could end the line or is not Latin-1 (RFC 9110 5.5)."""
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"a header value is a str, not {type(value).__name__}")
        value = str(value)
    if VALUE.fullmatch(value) is None:
        hint = "no CR, LF, NUL or other control characters; percent-encode what is not Latin-1"
        raise ValueError(f"{value!r} cannot be a header value: {hint}")
    return value.strip(" \t").encode("latin-1")


class Headers:
    """Header fields in the order they came; names are matched without regard to case.

    `get` joins the values of a repeated name with ", ", as Fetch does; `getall` keeps them apart.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: list[bytes]) -> None:
        # Name, value, name, value...: names in lower case, as they travel.
        self._fields = fields

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: D) -> str | D: ...
    def get(self, name: str, default: D | None = None) -> str | D | None:
        """The value of `name`, or `default`; several are joined with ", "."""
        values = self.getall(name)
        return ", ".join(values) if values else default

    def getall(self, name: str) -> list[str]:
        """Every value of `name`, in order; an empty list where there is none."""
        wanted = name.lower().encode("latin-1", "replace")
        fields = self._fields
        return [fields[at + 1].decode("latin-1") for at in range(0, len(fields), 2) if fields[at] == wanted]

    def has(self, name: str) -> bool:
        """Whether there is a field of that name."""
        return name in self

    def items(self) -> list[tuple[str, str]]:
        """Every field as (name in lower case, value), in order, repeated where it is repeated."""
        texts = [field.decode("latin-1") for field in self._fields]
        return list(zip(texts[::2], texts[1::2], strict=True))

    def keys(self) -> list[str]:
        """Every name in lower case, in order, repeated where it is repeated."""
        return [name.decode("latin-1") for name in self._fields[::2]]

    def values(self) -> list[str]:
        """Every value, in order."""
        return [value.decode("latin-1") for value in self._fields[1::2]]

    def __getitem__(self, name: str) -> str:
        values = self.getall(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode("latin-1", "replace") in self._fields[::2]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._fields) // 2

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.items()!r})"


class ResponseHeaders(Headers):
    """The fields of a response. `headers[name] = value` replaces every field of that name, `append` adds one more."""

    __slots__ = ()

    def append(self, name: str, value: str | int) -> None:
        """Add a field; fields of the same name stay."""
        self._fields += (field_name(name), field_value(value))

    def set(self, name: str, value: str | int) -> None:
        """Replace every field of that name by one."""
        self[name] = value

    def delete(self, name: str) -> None:
        """Remove every field of that name; none there is no error."""
        if name in self:
            del self[name]

    def setdefault(self, name: str, value: str | int) -> str:
        """The value of `name`, which is set to `value` first where it is missing."""
        if name not in self:
            self.append(name, value)
        return self[name]

    def update(self, headers: HeaderInput) -> None:
        """Replace the fields that `headers` names; what it names twice is sent twice."""
        pairs = list(pairs_of(headers))
        for name, _ in pairs:
            self.delete(name)
        for name, value in pairs:
            self.append(name, value)

    def __setitem__(self, name: str, value: str | int) -> None:
        own, text = field_name(name), field_value(value)
        self.delete(name)
        self._fields += (own, text)

    def __delitem__(self, name: str) -> None:
        wanted = name.lower().encode("latin-1", "replace")
        fields = self._fields
        kept = [at for at in range(0, len(fields), 2) if fields[at] != wanted]
        if len(kept) * 2 == len(fields):
            raise KeyError(name)
        fields[:] = [part for at in kept for part in fields[at : at + 2]]


def pairs_of(headers: HeaderInput) -> Iterable[tuple[str, str | int]]:
    """The pairs of whatever a user may pass as `headers=`."""
    if isinstance(headers, Headers):
        return headers.items()
    if isinstance(headers, Mapping):
        return headers.items()
    return headers


def fields_of(headers: HeaderInput) -> list[bytes]:
    """`headers` as alternating names and values. Raises ValueError or TypeError for what cannot be sent."""
    fields: list[bytes] = []
    for name, value in pairs_of(headers):
        fields += (field_name(name), field_value(value))
    return fields

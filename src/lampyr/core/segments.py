"""What one folder under app/ means in a URL: a name, a parameter, a catch-all, or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

# What begins with this segment is Lampyr's own (/_lampyr/env.js), whatever a project's functions would answer.
RESERVED = "_lampyr"
SCHEME = "name, [id], [...all], [[...all]] or (group)"


class Kind(Enum):
    """How a segment matches; the value is its rank among siblings (SPEC 1): lower is asked first."""

    STATIC = 0
    PARAM = 1
    CATCH_ALL = 2
    OPTIONAL = 3
    GROUP = -1


class Segment(NamedTuple):
    """One folder: `text` is the literal, or the name of the parameter."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return _SPELLING[self.kind].format(self.text)


_SPELLING = {
    Kind.STATIC: "{}",
    Kind.PARAM: "[{}]",
    Kind.CATCH_ALL: "[...{}]",
    Kind.OPTIONAL: "[[...{}]]",
    Kind.GROUP: "({})",
}
_DYNAMIC = re.compile(r"\[\[\.\.\.(?P<optional>[^\[\]]*)\]\]|\[\.\.\.(?P<all>[^\[\]]*)\]|\[(?P<one>[^\[\]]*)\]")
_NAME = re.compile(r"(?![.…\s])(?=.*\w)[^\[\]?/]+(?<!\s)")
_UNDERSCORES = re.compile(r"^(?:%5[Ff])+")


def is_private(folder: str) -> bool:
    """Whether the folder and everything below it stays out of the URL space."""
    return folder.startswith("_")


def parse(folder: str) -> Segment:
    """Read the name of one folder. Raises ValueError saying what is wrong with it."""
    if "[" in folder or "]" in folder:
        return _dynamic(folder)
    if folder.startswith("(") and folder.endswith(")"):
        if folder == "()":
            raise ValueError("the group has no name")
        return Segment(Kind.GROUP, folder[1:-1])
    if folder.startswith("(") or (folder.endswith(")") and "(" not in folder):
        raise ValueError("the parentheses must enclose the whole name: (group)")
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise ValueError("the name is not UTF-8, and a URL path is") from None
    return Segment(Kind.STATIC, _UNDERSCORES.sub(lambda found: "_" * (len(found[0]) // 3), folder))


def _dynamic(folder: str) -> Segment:
    found = _DYNAMIC.fullmatch(folder)
    if not found:
        if re.fullmatch(r"\[\[[^\[\].]*\]\]", folder):
            raise ValueError("an optional parameter must be a catch-all: [[...name]]")
        raise ValueError("the brackets are malformed: a parameter is the whole name of its folder")
    kind = {"optional": Kind.OPTIONAL, "all": Kind.CATCH_ALL, "one": Kind.PARAM}[found.lastgroup or "one"]
    name = found[found.lastgroup or "one"]
    if not name:
        raise ValueError("the brackets are malformed: the parameter has no name")
    if not _NAME.fullmatch(name):
        raise ValueError(f'the brackets are malformed: "{name}" cannot be the name of a parameter')
    return Segment(kind, name)


def parse_lenient(folder: str) -> Segment:
    """Read a folder name that may be malformed: then it is a literal, so that its function still has an address."""
    try:
        return parse(folder)
    except ValueError:
        return Segment(Kind.STATIC, folder)


def in_url(parts: Sequence[str]) -> tuple[Segment, ...]:
    """The segments of a route file's folders that show in its URL."""
    return tuple(segment for part in parts if (segment := parse_lenient(part)).kind is not Kind.GROUP)


def public_name(parts: Sequence[str]) -> str:
    """How people call the function whose folders are `parts`: "/api/chat/[id]"."""
    return "/" + "/".join(map(str, in_url(parts)))

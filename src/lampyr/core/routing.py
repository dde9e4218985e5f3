"""Which function answers a request target (SPEC 1): a tree of dicts, asked in order of precedence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lampyr.core import paths
from lampyr.core.segments import RESERVED, Kind, Segment, in_url
from lampyr.types import Function

# Only matches are remembered, and only short paths: whatever clients send, this stays at a few MB for each router.
_REMEMBERED = 2048
_REMEMBERED_LENGTH = 200


class Match(NamedTuple):
    """The function that answers.

    `path` is clean and percent-encoded; for an ASGI application in a catch-all folder it is as the client wrote it,
    dot segments resolved. `query` is raw, without "?". `file_path` is the decoded clean path, to look up static files
    (a slash that was encoded stays "%2F" there: no file can be meant), and empty where an application has an unclean
    path as it was written. `root_path` is for ASGI applications: the decoded path of the folder they are in, "" at the
    root.
    """

    function: Function
    params: Mapping[str, str | list[str]]
    path: str
    query: str
    file_path: str
    root_path: str


class Moved(NamedTuple):
    """308 to `location`: the clean spelling, with the query; one slash at its beginning, so never another host."""

    location: str


class Refused(NamedTuple):
    """400: the target is not a valid path. `message` holds nothing of the target."""

    message: str


class Missing(NamedTuple):
    """404 unless a static file is at `path` (as Match.file_path)."""

    path: str
    query: str


class _Target(NamedTuple):
    """A function and where in the segments its parameters are; `start` is where its catch-all begins."""

    function: Function
    names: tuple[tuple[int, str], ...]
    rest: str | None
    start: int


class _Node:
    """One level of the tree: whoever is asked next, in the order of the slots."""

    __slots__ = ("catch_all", "optional", "param", "route", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.route: _Target | None = None
        self.param: _Node | None = None
        self.catch_all: _Target | None = None
        self.optional: _Target | None = None

    def find(self, segments: Sequence[str], depth: int) -> _Target | None:
        """The target for `segments[depth:]`; backtracks, and never goes deeper than the longest route."""
        if depth == len(segments):
            return self.route or self.optional
        child = self.static.get(segments[depth])
        if child is not None and (target := child.find(segments, depth + 1)):
            return target
        if self.param is not None and (target := self.param.find(segments, depth + 1)):
            return target
        return self.catch_all or self.optional


class Router:
    """The route table of one deployment; never changes, so switching deployments is one assignment.

    Functions with a problem get an address too where no healthy one has it, so that `dev` can say what is wrong there.
    """

    def __init__(self, functions: Sequence[Function]) -> None:
        self._root = _Node()
        self._matches: dict[str, Match] = {}
        for function in sorted(functions, key=lambda function: function.problem is not None):
            self._add(function)

    def _add(self, function: Function) -> None:
        segments = in_url(function.parts)
        node = self._root
        for depth, (kind, text) in enumerate(segments):
            if kind is Kind.STATIC:
                node = node.static.setdefault(text, _Node())
            elif kind is Kind.PARAM:
                node.param = node = node.param or _Node()
            else:  # a catch-all ends the route; one that is not last is a problem that scan has reported
                target = _Target(function, _names(segments[:depth]), text, depth)
                if kind is Kind.CATCH_ALL:
                    node.catch_all = node.catch_all or target
                else:
                    node.optional = node.optional or target
                return
        node.route = node.route or _Target(function, _names(segments), None, len(segments))

    def resolve(self, target: str) -> Match | Moved | Refused | Missing:
        """Decide about a request target in origin form ("/a%20b?x=1", latin-1). Never raises, whatever the string."""
        path, mark, query = target.partition("?")
        if (match := self._matches.get(path)) is not None:
            if not mark:
                return match
            return Match(match.function, match.params, match.path, query, match.file_path, match.root_path)
        decision = self._decide(path, mark, query)
        if isinstance(decision, Match) and len(path) <= _REMEMBERED_LENGTH:
            if len(self._matches) >= _REMEMBERED:
                self._matches.clear()
            self._matches[path] = decision._replace(query="")
        return decision

    def _decide(self, path: str, mark: str, query: str) -> Match | Moved | Refused | Missing:
        clean = paths.clean(path)
        if isinstance(clean, str):
            return Refused(clean)
        target = self._root.find(clean.segments, 0) if clean.segments[:1] != (RESERVED,) else None
        if not clean.tidy and not (target and _owns_spelling(target, clean)):
            return Moved(clean.path + mark + paths.escape_unsafe(query))
        file_path = clean.path
        if "%" in file_path:
            file_path = "/" + "/".join([segment.replace("/", "%2F") for segment in clean.segments])
        if target is None:
            return Missing(file_path, query)
        if not clean.tidy:
            file_path = ""  # an application's own spelling, and no file's
        function = target.function
        params: dict[str, str | list[str]] = {name: clean.segments[index] for index, name in target.names}
        if target.rest is not None and len(clean.segments) > target.start:
            params[target.rest] = list(clean.segments[target.start :])
        if not function.asgi:
            return Match(function, params, clean.path, query, file_path, "")
        spelled = clean.path if target.rest is None else "/" + "/".join(clean.written)
        root_path = "".join(["/" + segment for segment in clean.segments[: target.start]])
        return Match(function, params, spelled, query, file_path, root_path)


def _names(segments: Sequence[Segment]) -> tuple[tuple[int, str], ...]:
    return tuple((index, name) for index, (kind, name) in enumerate(segments) if kind is Kind.PARAM)


def _owns_spelling(target: _Target, clean: paths.Clean) -> bool:
    """Whether an untidy path is an ASGI application's own business: its subtree, and tidy down to there.

    A backslash is not: browsers send a slash for it, and `/\\host/` must not reach anyone as `//host/`.
    """
    inside = target.function.asgi and target.rest is not None and not clean.backslash
    return inside and all(clean.written[: target.start])

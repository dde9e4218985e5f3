"""Routing (SPEC 1): precedence, parameters, and the one clean spelling of a path."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core.routing import Match, Missing, Moved, Refused, Router
from lampyr.core.segments import public_name
from lampyr.types import Function, Problem, Settings


def function(folders: str, *, asgi: bool = False, problem: Problem | None = None) -> Function:
    parts = tuple(part for part in folders.split("/") if part)
    return Function(
        route=public_name(parts),
        parts=parts,
        file=Path("app", *parts, "route.py"),
        methods=("GET",),
        asgi=asgi,
        settings=Settings(),
        problem=problem,
    )


def router(*folders: str) -> Router:
    return Router([function(folder) for folder in folders])


def folders_of(found: object) -> str | None:
    return "/".join(found.function.parts) if isinstance(found, Match) else None


PROJECT = (
    "",
    "about",
    "api/chat",
    "api/[id]",
    "api/[id]/edit",
    "blog/[...all]",
    "docs/[[...all]]",
    "both",
    "both/[[...rest]]",
    "d/static",
    "d/[id]/sub",
    "every/[id]",
    "every/[...all]",
    "every/[[...all]]",
    "(shop)/cart",
    "(shop)/(inner)/[item]/(x)/buy",
    "%5Fname",
    "%5F%5fdunder",
    "café",
    "a b",
    "100%25",
    "robots.txt",
    ".well-known/lampyr",
    "x(1)",
    "@me",
    "Case",
)


@pytest.mark.parametrize(
    ("path", "answers", "params"),
    [
        ("/", "", {}),
        ("/about", "about", {}),
        ("/api/chat", "api/chat", {}),
        ("/api/chat/edit", "api/[id]/edit", {"id": "chat"}),
        ("/api/7", "api/[id]", {"id": "7"}),
        ("/api", None, None),
        ("/api/7/edit/x", None, None),
        ("/blog", None, None),
        ("/blog/a", "blog/[...all]", {"all": ["a"]}),
        ("/blog/a/b%20c", "blog/[...all]", {"all": ["a", "b c"]}),
        ("/docs", "docs/[[...all]]", {}),
        ("/docs/a/b", "docs/[[...all]]", {"all": ["a", "b"]}),
        ("/both", "both", {}),
        ("/both/x", "both/[[...rest]]", {"rest": ["x"]}),
        ("/d/static", "d/static", {}),
        ("/d/static/sub", "d/[id]/sub", {"id": "static"}),
        ("/d/other", None, None),
        ("/every", "every/[[...all]]", {}),
        ("/every/1", "every/[id]", {"id": "1"}),
        ("/every/1/2", "every/[...all]", {"all": ["1", "2"]}),
        ("/cart", "(shop)/cart", {}),
        ("/shop/cart", None, None),
        ("/(shop)/cart", None, None),
        ("/7/buy", "(shop)/(inner)/[item]/(x)/buy", {"item": "7"}),
        ("/_name", "%5Fname", {}),
        ("/%5Fname", "%5Fname", {}),
        ("/__dunder", "%5F%5fdunder", {}),
        ("/caf%C3%A9", "café", {}),
        ("/caf%c3%a9", "café", {}),
        ("/caf\xc3\xa9", "café", {}),  # raw UTF-8, as curl sends it
        ("/a%20b", "a b", {}),
        ("/100%2525", "100%25", {}),
        ("/%61bout", "about", {}),
        ("/robots.txt", "robots.txt", {}),
        ("/robots%2Etxt", "robots.txt", {}),
        ("/.well-known/lampyr", ".well-known/lampyr", {}),
        ("/%2ewell-known/lampyr", ".well-known/lampyr", {}),
        ("/x(1)", "x(1)", {}),
        ("/@me", "@me", {}),
        ("/%40me", "@me", {}),
        ("/Case", "Case", {}),
        ("/case", None, None),
        ("/api/a%2Fb", "api/[id]", {"id": "a/b"}),
        ("/api/a%2fb/edit", "api/[id]/edit", {"id": "a/b"}),
        ("/api/a%5Cb", "api/[id]", {"id": "a\\b"}),
        ("/api%2Fchat", None, None),
        ("/api/%25", "api/[id]", {"id": "%"}),
        ("/api/%252e%252e", "api/[id]", {"id": "%2e%2e"}),
        ("/api/...", "api/[id]", {"id": "..."}),
        ("/api/a+b", "api/[id]", {"id": "a+b"}),
        ("/api/%0A", "api/[id]", {"id": "\n"}),
        ("/api/%F0%9F%94%A5", "api/[id]", {"id": "🔥"}),
        ("/api/%5Bid%5D", "api/[id]", {"id": "[id]"}),
        ("/api/[id]", "api/[id]", {"id": "[id]"}),
    ],
)
def test_a_path_is_answered_by(path: str, answers: str | None, params: dict[str, object] | None) -> None:
    found: Any = router(*PROJECT).resolve(path)
    assert folders_of(found) == answers
    assert isinstance(found, Missing) if answers is None else found.params == params


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/about/", "/about"),
        ("/about/?q=1", "/about?q=1"),
        ("/about/?", "/about?"),
        ("/about//?a=/b//c/&d=%zz", "/about?a=/b//c/&d=%zz"),
        ("//about", "/about"),
        ("/api//chat", "/api/chat"),
        ("//", "/"),
        ("///", "/"),
        ("//evil.example/", "/evil.example"),
        ("//evil.example", "/evil.example"),
        ("/\\evil.example", "/evil.example"),
        ("\\\\evil.example\\", "/evil.example"),
        ("/api\\chat", "/api/chat"),
        ("/\\", "/"),
        ("/unknown/", "/unknown"),
        ("/a/./b/", "/a/b"),
        ("/a/b/..", "/a"),
        ("/a/.", "/a"),
        ("/a//..//b", "/a/b"),
        ("/caf%C3%A9/", "/caf%C3%A9"),
        ("/caf\xc3\xa9/?\xe9", "/caf%C3%A9?%E9"),
        ("/a%2Fb/", "/a%2Fb"),
        ("/a%5Cb/", "/a%5Cb"),
        ("/%2F/", "/%2F"),
        ("/%5Fname/", "/_name"),
        ("/x/?a\r\nset-cookie: b", "/x?a%0D%0Aset-cookie:%20b"),
    ],
)
def test_an_unclean_path_is_moved(target: str, location: str) -> None:
    assert router(*PROJECT).resolve(target) == Moved(location)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/./about", "/about"),
        ("/x/../about", "/about"),
        ("/%2e/about", "/about"),
        ("/x/%2E%2e/about", "/about"),
        ("/x/.%2e/about", "/about"),
        ("/../../about", "/about"),
        ("/x/..", "/"),
        ("/.", "/"),
        ("/%7Eme/%2D%5f", "/~me/-_"),
        ("/a%2fb%3F%c3%a9", "/a%2fb%3F%c3%a9"),
    ],
)
def test_a_path_is_normalised(target: str, path: str) -> None:
    found = Router([function("[[...all]]")]).resolve(target)
    assert isinstance(found, Match) and found.path == path


@pytest.mark.parametrize(
    "target",
    ["/%", "/%4", "/%zz", "/%G0", "/a%", "/%00", "/a%00b", "/%ff", "/%C3", "/%C3/%A9", "/%C0%AE", "/%ED%A0%80",
     "/\xe9", "/\x00", "/a b", "/a\r\nb", "/\x7f", "/a#b", "/caf\u20ac", "/\ud800",
     "", "*", "about", "example.org:443", "http://example.org/", "?x"],
)  # fmt: skip
def test_an_invalid_path_is_refused(target: str) -> None:
    assert isinstance(router(*PROJECT).resolve(target), Refused)


def test_a_bad_path_is_refused_before_it_is_moved() -> None:
    assert isinstance(router("a").resolve("/a/%zz/"), Refused)


def test_the_query_is_as_the_client_wrote_it_also_when_the_path_is_remembered() -> None:
    table: Any = router("a/[id]")
    queries = [table.resolve(target).query for target in ("/a/1?x=%zz&&", "/a/1?y", "/a/1", "/a/1?", "/a/1?a?b")]
    assert queries == ["x=%zz&&", "y", "", "", "a?b"]


def test_the_file_path_is_decoded_and_an_encoded_slash_is_no_slash() -> None:
    table: Any = router("[id]")
    assert table.resolve("/a%20b").file_path == "/a b"
    assert table.resolve("/a%2Fb").file_path == "/a%2Fb"
    assert table.resolve("/x/y%20z?q") == Missing("/x/y z", "q")


APPLICATION = Router(
    [
        function("api/[[...path]]", asgi=True),
        function("api/health"),
        function("some/[...path]", asgi=True),
        function("t/[tenant]/[[...path]]", asgi=True),
        function("exact", asgi=True),
        function("plain/[[...path]]"),
    ]
)


@pytest.mark.parametrize(
    ("target", "path", "root_path"),
    [
        ("/api", "/api", "/api"),
        ("/api/", "/api/", "/api"),
        ("/api//x/", "/api//x/", "/api"),
        ("/api//", "/api//", "/api"),
        ("/api/x%2Fy/", "/api/x%2Fy/", "/api"),
        ("/api/%41/", "/api/%41/", "/api"),
        ("/%61pi/x", "/%61pi/x", "/api"),
        ("/api/./x/../y/", "/api/y/", "/api"),
        ("/api/x/%2e%2E/", "/api/", "/api"),
        ("/api/x/..", "/api/", "/api"),
        ("/x/../api//y", "/api//y", "/api"),
        ("/some/x/", "/some/x/", "/some"),
        ("/t/a%20b/", "/t/a%20b/", "/t/a b"),
        ("/exact", "/exact", "/exact"),
    ],
)
def test_an_application_receives_its_subtree_as_the_client_wrote_it(target: str, path: str, root_path: str) -> None:
    found = APPLICATION.resolve(target)
    assert isinstance(found, Match) and (found.path, found.root_path) == (path, root_path)
    assert found.function.asgi


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("//api/x", "/api/x"),
        ("/api/health/", "/api/health"),
        ("/some/", "/some"),
        ("/t//a/", "/t/a"),
        ("/exact/", "/exact"),
        ("/plain/x/", "/plain/x"),
        ("/api/\\x/", "/api/x"),
    ],
)
def test_outside_its_subtree_the_clean_path_is_the_only_one(target: str, location: str) -> None:
    assert APPLICATION.resolve(target) == Moved(location)


def test_where_an_application_has_an_unclean_path_as_written_no_file_is_meant() -> None:
    found: Any = APPLICATION.resolve("/api/a.css/")
    assert (found.path, found.file_path) == ("/api/a.css/", "")
    found = APPLICATION.resolve("/api/a.css")
    assert (found.path, found.file_path) == ("/api/a.css", "/api/a.css")


def test_an_application_at_the_root_never_gets_another_host_from_a_backslash() -> None:
    table = Router([function("[[...path]]", asgi=True)])
    assert table.resolve("/\\evil.example/x") == Moved("/evil.example/x")


def test_a_function_with_a_problem_answers_only_where_no_healthy_one_does() -> None:
    wrong = Problem(file="app/x/route.py", line=1, message="syntax error")
    table = Router(
        [
            function("(a)/x", problem=wrong),
            function("x"),
            function("y", problem=wrong),
            function("[...all]/z", problem=wrong),
            function("[broken", problem=wrong),
        ]
    )
    assert folders_of(table.resolve("/x")) == "x"
    assert folders_of(table.resolve("/y")) == "y"
    assert folders_of(table.resolve("/q/z")) == "[...all]/z"
    assert folders_of(table.resolve("/%5Bbroken")) == "[broken"


def test_no_function_answers_for_lampyr_itself() -> None:
    table = Router([function("[[...all]]", asgi=True)])
    assert table.resolve("/_lampyr/env.js") == Missing("/_lampyr/env.js", "")
    assert table.resolve("/x/../%5flampyr/env.js?v=1") == Missing("/_lampyr/env.js", "v=1")
    assert isinstance(table.resolve("/_lampyrs"), Match)


def test_no_functions() -> None:
    assert Router([]).resolve("/") == Missing("/", "")


def test_memory_of_answers_is_bounded_and_never_changes_an_answer() -> None:
    table: Any = router("u/[id]")
    for round_of in range(2):
        for number in range(5000):
            assert table.resolve(f"/u/{number}?{round_of}").params == {"id": str(number)}
    assert len(table._matches) <= 2048


# The oracle: sort every route by the rank of its segments, try each in turn.

RANK = {"static": 0, "[id]": 1, "[...all]": 2, "[[...all]]": 3}
WORDS = ("a", "b", "é", "A", "id")


def rank(route: tuple[str, ...]) -> list[int]:
    return [RANK.get(segment, 0) for segment in route]


def fits(route: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not route:
        return not path
    if route[0] == "[[...all]]":
        return True
    if not path:
        return False
    return route[0] == "[...all]" or (route[0] in ("[id]", path[0]) and fits(route[1:], path[1:]))


one = st.sampled_from((*WORDS, "[id]"))
last = st.sampled_from(((), ("[...all]",), ("[[...all]]",)))
routes = st.builds(lambda head, tail: (*head, *tail), st.lists(one, max_size=3), last)
words = st.lists(st.sampled_from((*WORDS, "z")), max_size=5).map(tuple)


def spell(data: st.DataObject, word: str) -> str:
    """A word as a client may write it: any of its bytes percent-encoded, in either case."""
    spelled = ""
    for byte in word.encode():
        form = data.draw(st.sampled_from(("%%%02X", "%%%02x"))) % byte
        spelled += form if byte > 127 or data.draw(st.booleans()) else chr(byte)
    return spelled


@given(st.sets(routes, max_size=12), words, st.data())
def test_the_tree_agrees_with_trying_every_route_in_order(
    table: set[tuple[str, ...]], path: tuple[str, ...], data: st.DataObject
) -> None:
    expected = next((route for route in sorted(table, key=rank) if fits(route, path)), None)
    target = "/" + "/".join(spell(data, word) for word in path)
    found = router(*("/".join(route) for route in table)).resolve(target)
    assert folders_of(found) == (None if expected is None else "/".join(expected))


@given(st.lists(st.sampled_from(("a", "b%20c", ".", "..", "%2e", ".%2E", "%2e%2e", "x.")), min_size=1, max_size=8))
def test_dot_segments_are_resolved_as_posixpath_does(segments: list[str]) -> None:
    path = "/" + "/".join([*segments, "end"])
    plain = path.replace("%2e", ".").replace("%2E", ".")
    found = Router([function("[[...all]]")]).resolve(path)
    assert isinstance(found, Match) and found.path == posixpath.normpath(plain)


TARGETS = st.one_of(st.text(), st.text("/\\.%2eEfF5cCaé?# \x00", max_size=12).map("/".__add__))


@given(TARGETS)
def test_any_string_has_an_answer_and_a_clean_path_is_final(target: str) -> None:
    for table in (router("", "a", "[id]/a", "b/[...all]"), Router([function("a/[[...all]]", asgi=True)])):
        found = table.resolve(target)
        assert found == table.resolve(target)
        if isinstance(found, Moved):
            location = found.location
            assert location.isascii() and location.isprintable() and " " not in location
            assert location.startswith("/") and not location.startswith(("//", "/\\"))
            assert not isinstance(table.resolve(location), (Moved, Refused))
        elif isinstance(found, Match) and not found.function.asgi:
            again = table.resolve(found.path)
            assert isinstance(again, Match) and again[:3] == found[:3]

"""SPEC 1: which route file answers a path, and what becomes of paths that are not clean."""

from __future__ import annotations

import pytest
from contract import Place

SAYS = """
    async def GET(req):
        return {"route": %r, "params": req.params, "path": req.path}

    POST = GET
"""
ROUTES = {
    name: SAYS % name
    for name in (
        "d/static",
        "d/[id]",
        "d/[id]/sub",
        "d/[...all]",
        "e/[[...rest]]",
        "e/mine",
        "f/[[...any]]",
        "f/[one]/[two]",
        "(group)/inside",
        "_private/hidden",
        "%5Funder",
        "café bar",
        "file.txt",
    )
}


@pytest.mark.parametrize(
    ("path", "route", "params"),
    [
        # static, then [id], then [...all], then [[...all]]; the first segment that differs decides
        ("/d/static", "d/static", {}),
        ("/d/other", "d/[id]", {"id": "other"}),
        ("/d/Static", "d/[id]", {"id": "Static"}),
        ("/d/static/sub", "d/[id]/sub", {"id": "static"}),
        ("/d/static/other", "d/[...all]", {"all": ["static", "other"]}),
        ("/d/x/sub", "d/[id]/sub", {"id": "x"}),
        ("/d/x/sub/y", "d/[...all]", {"all": ["x", "sub", "y"]}),
        # an optional catch-all: for zero segments the key is absent
        ("/e", "e/[[...rest]]", {}),
        ("/e/a", "e/[[...rest]]", {"rest": ["a"]}),
        ("/e/a/b/c", "e/[[...rest]]", {"rest": ["a", "b", "c"]}),
        ("/e/mine", "e/mine", {}),
        ("/e/mine/x", "e/[[...rest]]", {"rest": ["mine", "x"]}),
        ("/f/a/b", "f/[one]/[two]", {"one": "a", "two": "b"}),
        ("/f/a", "f/[[...any]]", {"any": ["a"]}),
        ("/f/a/b/c", "f/[[...any]]", {"any": ["a", "b", "c"]}),
        # folders that are not in the URL, or stand there otherwise
        ("/inside", "(group)/inside", {}),
        ("/_under", "%5Funder", {}),
        ("/%5Funder", "%5Funder", {}),
        ("/%5funder", "%5Funder", {}),
        ("/caf%C3%A9%20bar", "café bar", {}),
        ("/caf%c3%a9%20%62ar", "café bar", {}),
        ("/file.txt", "file.txt", {}),
        # params are decoded, segment by segment
        ("/d/a%2Fb", "d/[id]", {"id": "a/b"}),
        ("/d/a%2fb/sub", "d/[id]/sub", {"id": "a/b"}),
        ("/e/a%2Fb/c", "e/[[...rest]]", {"rest": ["a/b", "c"]}),
        ("/d/%E2%82%AC", "d/[id]", {"id": "€"}),
        ("/d/a+b", "d/[id]", {"id": "a+b"}),
        ("/d/a%2Bb", "d/[id]", {"id": "a+b"}),
        ("/d/%25", "d/[id]", {"id": "%"}),
        ("/d/%2525", "d/[id]", {"id": "%25"}),
        ("/d/a%3Fb", "d/[id]", {"id": "a?b"}),
        ("/d/%23", "d/[id]", {"id": "#"}),
        ("/d/%5C", "d/[id]", {"id": "\\"}),
        ("/d/__proto__", "d/[id]", {"id": "__proto__"}),
        ("/d/...", "d/[id]", {"id": "..."}),
        ("/d/.x", "d/[id]", {"id": ".x"}),
        # unreserved characters are decoded, dot segments resolved, plain and encoded
        ("/d/st%61tic", "d/static", {}),
        ("/d/./static", "d/static", {}),
        ("/d/%2e/static", "d/static", {}),
        ("/d/x/../static", "d/static", {}),
        ("/d/x/%2E%2e/static", "d/static", {}),
        ("/e/../d/static", "d/static", {}),
        ("/d/static?a=/../b//c", "d/static", {}),
    ],
)
def test_a_path_is_answered_by(place: Place, path: str, route: str, params: dict[str, object]) -> None:
    reply = place.ask(path)
    assert reply.status == 200, reply.body
    assert (reply.json()["route"], reply.json()["params"]) == (route, params)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/d/%41%7e", "/d/A~"),
        ("/d/a%2fb", "/d/a%2fb"),
        ("/d/x/../y", "/d/y"),
        ("/d/a%20b?x=%41", "/d/a%20b"),
    ],
)
def test_everyone_sees_the_one_spelling(place: Place, path: str, seen: str) -> None:
    assert place.ask(path).json()["path"] == f"/{place.runtime}{seen}"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/d/static/", "/d/static"),
        ("/d/static//", "/d/static"),
        ("/d//static", "/d/static"),
        ("/d\\static", "/d/static"),
        ("/d/static/?a=1&a=2", "/d/static?a=1&a=2"),
        ("/d/static/?", "/d/static?"),
        ("/d/static/?to=//x/%41+%", "/d/static?to=//x/%41+%"),
        ("/d/%41/", "/d/A"),
        ("/d/a%2Fb/", "/d/a%2Fb"),
        ("/d/x/..", "/d"),
        ("/d/x/%2e%2e", "/d"),
        ("/d/x/.", "/d/x"),
        ("/e/", "/e"),
        ("/nowhere/", "/nowhere"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_308_to_the_clean_path(place: Place, method: str, path: str, location: str) -> None:
    reply = place.ask(path, method)
    assert (reply.status, reply["location"]) == (308, f"/{place.runtime}{location}")


@pytest.mark.parametrize("start", ["//", "///", "/\\", "\\\\", "/.//", "/x/..//", "/%2e//", "//./"])
def test_a_redirect_never_leads_to_another_host(place: Place, start: str) -> None:
    reply = place.ask_whole(f"{start}evil.example/{place.runtime}/d/static")
    location = reply["location"] or ""
    assert (reply.status, location) == (308, f"/evil.example/{place.runtime}/d/static") or reply.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/d/%", "/d/%2", "/d/%zz", "/d/%u0041", "/d/%00", "/d/a%00b", "/d/%ff", "/d/%C3", "/d/%C3%28", "/d/%c0%ae",
        "/d/%ED%A0%80", "/d/\udcff", "/d/€", "/d/x#y", "/d/\x7f",
    ],
)  # fmt: skip
def test_400(place: Place, path: str) -> None:
    reply = place.ask(path)
    assert (reply.status, reply.error) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/nowhere", "/d", "/_private/hidden", "/(group)/inside", "/%28group%29/inside", "/INSIDE", "/e%2Fmine",
             "/route.py"]
)  # fmt: skip
def test_404_for_every_method(place: Place, method: str, path: str) -> None:
    reply = place.ask(path, method)
    assert (reply.status, reply.error) == (404, "NOT_FOUND")

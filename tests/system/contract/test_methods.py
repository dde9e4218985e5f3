"""SPEC 2: which handler a method reaches, what OPTIONS and HEAD get, and which methods there are."""

from __future__ import annotations

import pytest
from contract import Place

ROUTES = {
    "m/get": """
        def GET(req):
            return Response("body", 200, {"x-method": req.method, "set-cookie": "a=1"})

        from lampyr import Response
    """,
    "m/post": "async def POST(): return 'posted'",
    "m/all": "\n".join(
        f"async def {method}(req, ctx): return '{method.lower()} ' + req.method"
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    ),
    "m/head": """
        from lampyr import Response
        def HEAD(): return Response(None, 200, {"x-mine": "yes"})
        def DELETE(): return "deleted"
    """,
    "m/stream": """
        async def GET():
            yield "a"
            yield "b"
    """,
    "m/nothing": "GREETING = 'no handler'\ndef get(): return 'lower case is no handler'\ndef PUT(): return ''",
}


@pytest.mark.parametrize(
    ("route", "method", "status", "allow", "body"),
    [
        ("get", "GET", 200, None, b"body"),
        ("get", "HEAD", 200, None, b""),
        ("get", "OPTIONS", 204, "GET, HEAD, OPTIONS", b""),
        ("get", "POST", 405, "GET, HEAD, OPTIONS", None),
        ("get", "DELETE", 405, "GET, HEAD, OPTIONS", None),
        ("post", "POST", 200, None, b"posted"),
        ("post", "GET", 405, "OPTIONS, POST", None),
        ("post", "HEAD", 405, "OPTIONS, POST", b""),
        ("post", "OPTIONS", 204, "OPTIONS, POST", b""),
        ("all", "GET", 200, None, b"get GET"),
        ("all", "HEAD", 200, None, b""),
        ("all", "POST", 200, None, b"post POST"),
        ("all", "PUT", 200, None, b"put PUT"),
        ("all", "PATCH", 200, None, b"patch PATCH"),
        ("all", "DELETE", 200, None, b"delete DELETE"),
        ("all", "OPTIONS", 200, None, b"options OPTIONS"),
        ("head", "HEAD", 200, None, b""),
        ("head", "GET", 405, "DELETE, HEAD, OPTIONS", None),
        ("head", "OPTIONS", 204, "DELETE, HEAD, OPTIONS", b""),
        ("nothing", "GET", 405, "OPTIONS, PUT", None),
        ("nothing", "PUT", 200, None, b""),
    ],
)
def test_methods(place: Place, route: str, method: str, status: int, allow: str | None, body: bytes | None) -> None:
    reply = place.ask(f"/m/{route}", method)
    assert (reply.status, reply["allow"]) == (status, allow)
    assert reply.error == ("METHOD_NOT_ALLOWED" if status == 405 else None)
    assert body is None or reply.body == body


@pytest.mark.parametrize(
    "method", ["BREW", "get", "Get", "TRACE", "CONNECT", "PROPFIND", "QUERY", "GETT", "X", "M-SEARCH", "__class__"]
)
@pytest.mark.parametrize("path", ["/m/all", "/m/get", "/nowhere"])
def test_a_method_outside_the_seven(place: Place, method: str, path: str) -> None:
    reply = place.ask(path, method)
    assert (reply.status, reply.error) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("target", ["app.example:443", "app.example", "127.0.0.1:1"])
def test_connect_makes_no_tunnel(place: Place, target: str) -> None:
    with place.line() as line:
        reply = line.ask("CONNECT", target).reply()
        assert (reply.status, reply.error) == (400, "BAD_REQUEST")
        assert line.ended()


def test_options_of_the_whole_server(place: Place) -> None:
    reply = place.ask_whole("*", "OPTIONS")
    assert (reply.status, reply["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    assert place.ask_whole("*").status == 400


@pytest.mark.parametrize("route", ["get", "stream"])
def test_head_is_get_without_its_body(place: Place, route: str) -> None:
    """The handler runs, and the connection is good for the next request."""
    with place.line() as line:
        path = f"/{place.runtime}/m/{route}"
        of_get = line.ask("GET", path).reply()
        of_head = line.ask("HEAD", path).reply("HEAD")
        again = line.ask("GET", path).reply()
    assert (of_head.status, of_head.body, again.body) == (200, b"", of_get.body)
    differing = {"x-lampyr-id", "server-timing", "date", "transfer-encoding", "content-length"}
    if route == "stream":
        differing.add("content-type")  # its first chunk would have said so, and HEAD makes none (RFC 9110 9.3.2)
    assert of_head.names - differing == of_get.names - differing
    if route == "get":
        assert (of_get["x-method"], of_head["x-method"]) == ("GET", "HEAD")
        assert of_head["content-length"] == of_get["content-length"] == "4"


def test_head_reaches_its_own_handler(place: Place) -> None:
    assert place.ask("/m/head", "HEAD")["x-mine"] == "yes"

"""SPEC 2, Response and return values: what a client gets for what a handler answers with."""

from __future__ import annotations

import gzip
import re
from typing import Any

import brotli
import pytest
from contract import Place, express

TEXT = "text/plain;charset=UTF-8"
JSON = "application/json"
PLATFORM = {"x-lampyr-id", "server-timing", "date"}


def row(name: str, expression: str, body: bytes | None = b"", status: int = 200, **fields: str | None) -> Any:
    """A row: what a handler returns, and the body, status and header fields that arrive (None: not there)."""
    wanted = {key.replace("_", "-"): value for key, value in fields.items()}
    return pytest.param(name, expression, status, wanted, body, id=name)


ANSWERS = [
    # Response(body, status, headers)
    row("str", "Response('hé')", "hé".encode(), content_type=TEXT, content_length="3"),
    row("str-empty", "Response('')", b"", content_type=TEXT, content_length="0"),
    row("bytes", "Response(b'\\x00\\xff')", b"\0\xff", content_type=None, content_length="2"),
    row("bytearray", "Response(bytearray(b'ab'))", b"ab", content_type=None),
    row("none", "Response()", b"", content_type=None, content_length="0"),
    row("status", "Response('x', 418)", b"x", 418),
    row("status-201", "Response(None, 201, {'Location': '/made'})", b"", 201, location="/made"),
    row("status-599", "Response('x', status=599)", b"x", 599),
    row("own-error", "Response.json({'mine': 1}, 500)", b'{"mine":1}', 500, x_lampyr_error=None),
    row("own-type", "Response('<p>', headers={'Content-Type': 'text/html'})", b"<p>", content_type="text/html"),
    row("pairs", "Response('x', headers=[('X-A', '1'), ('X-B', 2)])", b"x", x_a="1", x_b="2"),
    row("headers-set", "changed(lambda r: r.headers.set('x-a', 'b'))", b"r", x_a="b"),
    row("headers-delete", "changed(lambda r: r.headers.delete('content-type'))", b"r", content_type=None),
    row("header-latin", "Response('x', headers={'x-a': 'é'})", b"x", x_a="é"),
    row("surrogate", "Response('a\\ud800')", "a\ufffd".encode(), content_type=TEXT),
    row("large", "Response('x' * 1_000_000)", b"x" * 1_000_000, content_length="1000000"),
    # JSON
    row("json", "Response.json({'a': [1, 2.5, None, True], 'é': '€'})",
        '{"a":[1,2.5,null,true],"é":"€"}'.encode(), content_type=JSON),
    row("json-none", "Response.json(None)", b"null", content_type=JSON),
    row("json-status", "Response.json('x', status=422)", b'"x"', 422, content_type=JSON),
    row("json-type", "Response.json([], headers={'content-type': 'application/problem+json'})", b"[]",
        content_type="application/problem+json"),
    row("json-nan", "Response.json(float('nan'))", None, 500),
    row("json-set", "Response.json({1, 2})", None, 500),
    # statuses without a body (Fetch: 204, 205, 304)
    row("204", "Response(None, 204)", b"", 204, content_length=None, transfer_encoding=None, content_type=None),
    row("205", "Response(None, 205)", b"", 205, content_length="0"),
    row("304", "Response(None, 304, {'ETag': '\"x\"'})", b"", 304, etag='"x"', transfer_encoding=None),
    row("204-body", "Response('x', 204)", None, 500),
    row("205-body", "Response(b'', 205)", None, 500),
    row("304-body", "Response(iter(['x']), 304)", None, 500),
    row("101", "Response(None, 101)", None, 500),
    row("600", "Response(None, 600)", None, 500),
    row("status-str", "Response(None, '200')", None, 500),
    # redirects
    row("redirect", "Response.redirect('/there?a=1#b')", b"", 302, location="/there?a=1#b", content_type=None),
    row("redirect-301", "Response.redirect('https://example.com/é', 301)", b"", 301,
        location="https://example.com/%C3%A9"),
    row("redirect-303", "Response.redirect('there', status=303)", b"", 303, location="there"),
    row("redirect-307", "Response.redirect('//host/%2F', 307)", b"", 307, location="//host/%2F"),
    row("redirect-308", "Response.redirect('/a b', 308)", b"", 308, location="/a%20b"),
    row("redirect-200", "Response.redirect('/x', 200)", None, 500),
    row("redirect-304", "Response.redirect('/x', 304)", None, 500),
    # nothing of a handler's can end a line, or decide where a response ends
    row("inject-value", "Response('x', headers={'x-a': 'b\\r\\nx-evil: 1'})", None, 500, x_evil=None),
    row("inject-lf", "Response('x', headers={'x-a': 'b\\nx-evil: 1'})", None, 500, x_evil=None),
    row("inject-cr", "Response('x', headers={'x-a': 'b\\rx-evil: 1'})", None, 500, x_evil=None),
    row("inject-nul", "Response('x', headers={'x-a': 'b\\0'})", None, 500),
    row("inject-name", "Response('x', headers={'x-a: 1\\r\\nx-evil': '1'})", None, 500, x_evil=None),
    row("inject-append", "changed(lambda r: r.headers.append('x-a', '\\r\\nx-evil: 1'))", None, 500, x_evil=None),
    row("inject-cookie", "changed(lambda r: r.cookies.set('a', 'b', path='/\\r\\nx-evil: 1'))", None, 500, x_evil=None),
    row("inject-redirect", "Response.redirect('/\\r\\nx-evil: 1')", None, 500, x_evil=None),
    row("inject-body", "Response('x\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n\\r\\n')", b"x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    row("name-space", "Response('x', headers={'x a': '1'})", None, 500),
    row("name-empty", "Response('x', headers={'': '1'})", None, 500),
    row("value-not-latin", "Response('x', headers={'x-a': '€'})", None, 500),
    row("framing", "Response('x', headers={'transfer-encoding': 'chunked', 'connection': 'close', 'keep-alive': '1',"
        " 'upgrade': 'h2c'})", b"x", transfer_encoding=None, connection=None, keep_alive=None, upgrade=None,
        content_length="1"),
    row("length-too-long", "Response('x', headers={'content-length': '100'})", b"x", content_length="1"),
    row("length-too-short", "Response('xyz', headers={'content-length': '1'})", b"xyz", content_length="3"),
    row("id-is-ours", "Response('x', headers={'x-lampyr-id': 'forged'})", b"x"),
    # what else a handler may return
    row("dict", "{'a': 1, 'é': [None]}", '{"a":1,"é":[null]}'.encode(), content_type=JSON),
    row("dict-empty", "{}", b"{}", content_type=JSON),
    row("list", "[1, 'x', {'a': 2}]", b'[1,"x",{"a":2}]', content_type=JSON),
    row("dataclass", "Point(1, [Point(2, None)])", b'{"x":1,"y":[{"x":2,"y":null}]}', content_type=JSON),
    row("pydantic", "Model(x=1, at='2026-01-02')", b'{"x":1,"at":"2026-01-02"}', content_type=JSON),
    row("msgspec", "Struct(1, ['a'])", b'{"x":1,"y":["a"]}', content_type=JSON),
    row("models-in-a-list", "[Point(1, 2), Model(x=3, at='2026-01-02'), Struct(4, 5)]",
        b'[{"x":1,"y":2},{"x":3,"at":"2026-01-02"},{"x":4,"y":5}]', content_type=JSON),
    row("a-str", "'hé'", "hé".encode(), content_type=TEXT),
    row("a-bytes", "b'\\xff'", b"\xff", content_type=None),
    row("generator", "(piece for piece in ('a', 'é'))", "aé".encode(), content_type=TEXT, content_length=None),
    row("async-generator", "slowly('a', b'b')", b"ab", content_type=TEXT),
    row("bytes-generator", "slowly(b'a', b'b')", b"ab", content_type=None),
    row("empty-generator", "slowly()", b"", content_length="0"),
    row("iterable-body", "Response(['a', 'b'], 201, {'x-a': '1'})", b"ab", 201, x_a="1"),
    row("sse", "sse(slowly('a', {'b': 1}, 'c\\nd'))", b'data: a\n\ndata: {"b":1}\n\ndata: c\ndata: d\n\n',
        content_type="text/event-stream", cache_control="no-cache, no-transform", x_accel_buffering="no"),
    row("sse-by-hand", "Response(slowly('data: a\\n\\n'), headers={'content-type': 'text/event-stream'})",
        b"data: a\n\n", content_type="text/event-stream", cache_control="no-cache, no-transform",
        x_accel_buffering="no"),
    row("sse-own-cache-control", "Response(sse(['a']), headers={'cache-control': 'no-store'})", b"data: a\n\n",
        cache_control="no-store"),
    row("ui-messages", "ui_messages(slowly('a'))", None, content_type="text/event-stream",
        x_vercel_ai_ui_message_stream="v1", x_accel_buffering="no"),
]  # fmt: skip

NONSENSE = {
    "returned-none": ("None", "NoneType"),
    "a-int": ("7", "int"),
    "a-bool": ("True", "bool"),
    "a-set": ("{1}", "set"),
    "a-tuple": ("(1, 2)", "tuple"),
    "a-class": ("dict", "type"),
    "a-object": ("object()", "object"),
    "a-coroutine": ("slowly", "function"),
    "a-dict-of-bytes": ('{"a": [b"1"]}', "dict, in which bytes"),
}

HANDLERS = """
    import dataclasses
    import datetime
    from typing import Any

    import msgspec
    import pydantic
    from lampyr import Response, sse, ui_messages

    @dataclasses.dataclass
    class Point:
        x: int
        y: Any

    class Model(pydantic.BaseModel):
        x: int
        at: datetime.date

    class Struct(msgspec.Struct):
        x: int
        y: Any

    def changed(change):
        response = Response("r")
        change(response)
        return response

    async def slowly(*chunks):
        for chunk in chunks:
            yield chunk
"""
ROUTES = {
    "answers/[row]": express(
        [(str(one.id), one.values[1]) for one in ANSWERS] + [(name, value) for name, (value, _) in NONSENSE.items()],
        HANDLERS,
    ),
    "cookies": """
        from lampyr import Response

        def GET():
            response = Response("c", headers=[("Set-Cookie", "raw=1; Path=/x"), ("set-cookie", "raw2=2")])
            response.cookies.set("a", "x y;", httponly=True, secure=True, samesite="lax", max_age=60)
            response.cookies.set("b", "2", path="/b")
            response.cookies.delete("gone")
            return response
    """,
    "sized": """
        from lampyr import Response

        TYPES = {
            "text": "text/plain", "json": "application/json", "svg": "image/svg+xml", "png": "image/png",
            "fixed": "text/plain", "etag": "text/plain", "small": "text/plain", "none": None,
        }

        def GET(req):
            kind = req.query.get("kind")
            headers = {"content-type": TYPES[kind]} if TYPES[kind] else {}
            if kind == "fixed":
                headers["content-encoding"] = "x-own"
            if kind == "etag":
                headers["etag"] = '"v1"'
            return Response(b"lampyr " * (3 if kind == "small" else 3000), 200, headers)
    """,
}


@pytest.mark.parametrize(("name", "expression", "status", "fields", "body"), ANSWERS)
def test_a_client_gets(
    place: Place, name: str, expression: str, status: int, fields: dict[str, str | None], body: bytes | None
) -> None:
    reply = place.ask(f"/answers/{name}")
    assert (reply.status, reply.whole) == (status, True), reply.body
    assert {key: reply[key] for key in fields} == fields
    if body is not None:
        assert reply.body == body
    elif status == 500:
        assert reply.error == "FUNCTION_INVOCATION_FAILED"


@pytest.mark.parametrize("name", NONSENSE)
def test_500_for_anything_else(place: Place, name: str) -> None:
    """The log names file, method and type; the client learns nothing of it in production."""
    reply = place.ask(f"/answers/{name}", "POST")
    assert (reply.status, reply.error) == (500, "FUNCTION_INVOCATION_FAILED")
    file = re.escape(f"app/{place.runtime}/answers/[row]/route.py")
    place.server.log(rf"{reply['x-lampyr-id']} \| .*{file}.*POST.* {NONSENSE[name][1]}\b")
    if place.command == "start":
        assert b"route.py" not in reply.body


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("str", {"content-type", "content-length"}),
        ("bytes", {"content-length"}),
        ("none", {"content-length"}),
        ("dict", {"content-type", "content-length"}),
        ("204", set()),
        ("generator", {"content-type", "transfer-encoding"}),
        ("bytes-generator", {"transfer-encoding"}),
        ("redirect", {"location", "content-length"}),
        ("sse", {"content-type", "cache-control", "x-accel-buffering", "transfer-encoding"}),
    ],
)
def test_no_surprise_headers(place: Place, name: str, names: set[str]) -> None:
    reply = place.ask(f"/answers/{name}", headers={"Accept-Encoding": "gzip, br", "Origin": "http://elsewhere"})
    assert reply.names - {"content-encoding", "vary"} == names | PLATFORM
    assert ("content-encoding" in reply.names) == (name == "generator")


def test_timing_of_whole_answers_and_streams(place: Place) -> None:
    assert "exec;dur=" in (place.ask("/answers/str")["server-timing"] or "")
    assert "exec;dur=" not in (place.ask("/answers/generator")["server-timing"] or "")


def test_an_id_cannot_be_forged(place: Place) -> None:
    assert place.ask("/answers/id-is-ours").all("x-lampyr-id") != ["forged"]


def test_several_set_cookie(place: Place) -> None:
    lines = place.ask("/cookies").all("set-cookie")
    assert lines[:2] == ["raw=1; Path=/x", "raw2=2"]
    assert [line.split(";")[0] for line in lines[2:4]] == ["a=x%20y%3B", "b=2"]
    attributes = {part.strip().lower() for part in lines[2].split(";")[1:]}
    assert attributes == {"path=/", "httponly", "secure", "samesite=lax", "max-age=60"}
    assert lines[4].startswith("gone=;") and len(lines) == 5


@pytest.mark.parametrize(
    ("accept", "kind", "coding"),
    [
        ("gzip", "text", "gzip"),
        ("br", "text", "br"),
        ("gzip, deflate, br, zstd", "text", "br"),
        ("gzip;q=1, br;q=0.5", "text", "gzip"),
        ("*", "json", "br"),
        ("gzip", "svg", "gzip"),
        ("GZIP", "text", "gzip"),
        (None, "text", None),
        ("identity", "text", None),
        ("gzip;q=0", "text", None),
        ("deflate, zstd", "text", None),
        ("", "text", None),
        ("gzip", "png", None),
        ("gzip", "none", None),
        ("gzip", "small", None),
        ("gzip", "fixed", "x-own"),
        ("gzip", "etag", "gzip"),
    ],
)
def test_compression_where_it_was_asked_for(place: Place, accept: str | None, kind: str, coding: str | None) -> None:
    reply = place.ask(f"/sized?kind={kind}", headers={"Accept-Encoding": accept} if accept is not None else {})
    decode = {"gzip": gzip.decompress, "br": brotli.decompress}.get(coding or "", bytes)
    assert (reply.status, reply["content-encoding"]) == (200, coding)
    assert decode(reply.body) == b"lampyr " * (3 if kind == "small" else 3000)
    if coding in ("gzip", "br"):
        assert (reply["vary"] or "").lower() == "accept-encoding"
        assert int(reply["content-length"] or 0) == len(reply.body) < 3000
    if kind == "etag":
        assert reply["etag"] == 'W/"v1"'

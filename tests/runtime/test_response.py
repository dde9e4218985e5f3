"""What a handler answers with: SPEC 2, Response and return values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
import pydantic
import pytest

from lampyr import Request, Response, cookies

Head = list[tuple[str, str]]
PLAIN = [("content-type", "text/plain;charset=UTF-8")]
JSON = [("content-type", "application/json")]


def head(response: Response) -> tuple[int, Head]:
    status, *fields = (field.decode("latin-1") for field in response.fields())
    return int(status), list(zip(fields[::2], fields[1::2], strict=True))


MADE: list[tuple[Response, int, Head, bytes | None]] = [
    (Response(), 200, [], None),
    (Response("é"), 200, PLAIN, "é".encode()),
    (Response(""), 200, PLAIN, b""),
    (Response("\ud83d\ude00\ud800"), 200, PLAIN, "😀\ufffd".encode()),
    (Response(b"\x00"), 200, [], b"\x00"),
    (Response(bytearray(b"a")), 200, [], b"a"),
    (Response(memoryview(b"a")), 200, [], b"a"),
    (Response("<p>", 201, {"Content-Type": "text/html"}), 201, [("content-type", "text/html")], b"<p>"),
    (Response(None, 204), 204, [], None),
    (Response(None, HTTPStatus.NOT_MODIFIED, {"etag": '"x"'}), 304, [("etag", '"x"')], None),
    (Response(None, 599), 599, [], None),
    (Response(None, headers=[("a", "1"), ("A", "2")]), 200, [("a", "1"), ("a", "2")], None),
    (Response.json({"a": [1, "é"]}), 200, JSON, '{"a":[1,"é"]}'.encode()),
    (Response.json(None), 200, JSON, b"null"),
    (Response.json(1, 418, {"x": "y"}), 418, [("x", "y"), *JSON], b"1"),
    (Response.json(1, headers={"Content-Type": "text/x"}), 200, [("content-type", "text/x")], b"1"),
    (Response.redirect("/x"), 302, [("location", "/x")], None),
    (Response.redirect("https://a.test/?q=1#f", 308), 308, [("location", "https://a.test/?q=1#f")], None),
    (Response.redirect("/café?q=a b%20"), 302, [("location", "/caf%C3%A9?q=a%20b%20")], None),
    (Response.redirect("/\\evil.test"), 302, [("location", "/%5Cevil.test")], None),
]


@pytest.mark.parametrize(("response", "status", "fields", "body"), MADE)
def test_made(response: Response, status: int, fields: Head, body: bytes | None) -> None:
    assert head(response) == (status, fields) and response.body == body and response.status == status


REFUSED: list[tuple[Callable[[], Any], type[Exception]]] = [
    (lambda: Response(None, 199), ValueError),
    (lambda: Response(None, 101), ValueError),
    (lambda: Response(None, 600), ValueError),
    (lambda: Response(None, 0), ValueError),
    (lambda: Response(None, "200"), ValueError),  # type: ignore[arg-type]  # so that it is refused
    (lambda: Response(None, True), ValueError),
    (lambda: Response(None, 200.0), ValueError),  # type: ignore[arg-type]  # so that it is refused
    (lambda: Response("", 204), ValueError),
    (lambda: Response(b"x", 205), ValueError),
    (lambda: Response(iter(()), 304), ValueError),
    (lambda: Response.json({}, 204), ValueError),
    (lambda: Response(None, 200, {"a\r\n": "b"}), ValueError),
    (lambda: Response(None, 200, {"a": "b\r\nc: d"}), ValueError),
    (lambda: Response({"a": 1}), TypeError),
    (lambda: Response(5), TypeError),  # type: ignore[arg-type]  # so that it is refused
    (lambda: Response(Response()), TypeError),  # type: ignore[arg-type]  # so that it is refused
    (lambda: Response.json(float("nan")), ValueError),
    (lambda: Response.json({1, 2}), TypeError),
    (lambda: Response.redirect("/x", 200), ValueError),
    (lambda: Response.redirect("/x", 304), ValueError),
    (lambda: Response.redirect("/x", 309), ValueError),
    (lambda: Response.redirect(""), ValueError),
    (lambda: Response.redirect("/a\r\nset-cookie: b=1"), ValueError),
    (lambda: Response.redirect("/a\0"), ValueError),
    (lambda: Response.redirect(None), TypeError),  # type: ignore[arg-type]  # so that it is refused
]


@pytest.mark.parametrize(("make", "error"), REFUSED)
def test_refused(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_cookies_and_own_set_cookie() -> None:
    response = Response("x", headers=[("set-cookie", "a=own"), ("set-cookie", "a=twice; Path=/x")])
    response.cookies.set("a", "helper")
    response.cookies.set("b", "1")
    response.cookies.delete("c")
    response.headers.append("Set-Cookie", "d=4")
    lines = [value for name, value in head(response)[1] if name == "set-cookie"]
    assert lines == [
        "a=own",
        "a=twice; Path=/x",
        "d=4",
        "b=1; Path=/",
        "c=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ]


def test_the_cookies_helper_gives_way(serve: Callable[..., Any]) -> None:
    kept = Response("kept")

    async def handler(request: Request) -> Response:
        cookies().set("a", "helper")
        cookies().set("b", "helper")
        if request.query.get("kept"):
            return kept
        response = Response("x", headers={"set-cookie": "a=own"})
        response.cookies.set("b", "response")
        return response

    gateway = serve(GET=handler)
    fields = gateway.call().fields
    assert [value for name, value in fields if name == "set-cookie"] == ["a=own", "b=response; Path=/"]
    for _ in range(2):
        assert len([name for name, _ in gateway.call("GET", "/?kept=1").fields if name == "set-cookie"]) == 2


@dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    name: str


class Struct:
    """What a msgspec.Struct looks like from outside."""

    __struct_fields__ = ("a",)


class Dumps:
    def model_dump_json(self) -> str:
        return '{"d":1}'


RETURNS: list[tuple[Any, Head, bytes]] = [
    ({"a": 1}, JSON, b'{"a":1}'),
    ([], JSON, b"[]"),
    ([Point(1), Model(name="n")], JSON, b'[{"x":1},{"name":"n"}]'),
    (Point(1), JSON, b'{"x":1}'),
    (Model(name="n"), JSON, b'{"name":"n"}'),
    (Dumps(), JSON, b'{"d":1}'),
    ("text", PLAIN, b"text"),
    ("", PLAIN, b""),
    (b"bytes", [], b"bytes"),
    (bytearray(b"bytes"), [], b"bytes"),
    (Response("r"), PLAIN, b"r"),
]


@pytest.mark.parametrize(("value", "fields", "body"), RETURNS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_returned(serve: Callable[..., Any], kind: str, value: Any, fields: Head, body: bytes) -> None:
    async def handler() -> Any:
        return value

    answer = serve(GET=handler if kind == "async" else lambda: value).call()
    assert (answer.status, answer.fields, answer.body) == (200, fields, body)


def test_msgspec_models(serve: Callable[..., Any]) -> None:
    struct = msgspec.defstruct("S", [("a", int)])
    gateway = serve(GET=lambda: struct(a=1), POST=lambda: [struct(a=2)])
    assert gateway.call().json() == {"a": 1} and gateway.call("POST").json() == [{"a": 2}]


NONSENSE: list[tuple[Any, str]] = [
    (None, "NoneType"),
    (5, "int"),
    (True, "bool"),
    (1.5, "float"),
    ((1, 2), "tuple"),
    ({1}, "set"),
    (range(2), "range"),
    (object(), "object"),
    (Point, "type"),
    (Model, "ModelMetaclass"),
    (print, "builtin_function_or_method"),
]


@pytest.mark.parametrize(("value", "name"), NONSENSE)
def test_nonsense_names_file_method_and_type(serve: Callable[..., Any], value: Any, name: str) -> None:
    kind, text = serve(PUT=lambda: value).call("PUT").failure
    assert kind == "raised" and "/project/app/api/test/route.py" in text and f"PUT returned {name};" in text
    assert "Traceback" not in text


def test_nothing_and_a_pair_are_told_what_is_missing(serve: Callable[..., Any]) -> None:
    gateway = serve(GET=lambda: None, POST=lambda: ({}, 201))
    assert gateway.call().failure[1].endswith("or a generator; is a return missing?")
    assert "Response.json(value, status=...)" in gateway.call("POST").failure[1]


def test_arguments(serve: Callable[..., Any]) -> None:
    async def none() -> str:
        return "0"

    async def request(request: Request) -> str:
        return request.method

    def both(request: Request, context: Any) -> str:
        return request.method + str(context.params["id"])

    gateway = serve(GET=none, POST=request, PUT=both)
    assert gateway.call("GET").text == "0" and gateway.call("POST").text == "POST"
    assert gateway.call("PUT", params={"id": "7"}).text == "PUT7"


HEADS: list[tuple[Any, int, Head]] = [
    ("hello", 200, [*PLAIN, ("content-length", "5")]),
    ({"a": 1}, 200, [*JSON, ("content-length", "7")]),
    (Response(None, 204), 204, []),
    (Response(), 200, []),
    (Response(iter(["a"]), 200, {"x": "y"}), 200, [("x", "y")]),
]


@pytest.mark.parametrize(("value", "status", "fields"), HEADS)
def test_head_is_get_without_the_body(serve: Callable[..., Any], value: Any, status: int, fields: Head) -> None:
    async def handler(request: Request) -> Any:
        assert request.method == "HEAD"
        return value

    answer = serve(GET=handler).call("HEAD")
    assert (answer.status, answer.fields, answer.body) == (status, fields, b"")


def test_a_large_body_leaves_in_pieces_with_its_length(serve: Callable[..., Any]) -> None:
    body = bytes(range(256)) * 4096

    answer = serve(GET=lambda: body).call()
    assert answer.body == body and answer.headers["content-length"] == str(len(body)) and len(answer.chunks) == 4

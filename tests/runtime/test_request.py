"""What a handler sees of a request, through a real instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lampyr import BadRequest, Context, Request
from lampyr.runtime import wire


async def show(request: Request, context: Context) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "path": request.path,
        "query": request.query.items(),
        "headers": request.headers.items(),
        "agent": request.headers.get("USER-AGENT"),
        "cookies": request.cookies.all(),
        "params": request.params,
        "context": context.params == request.params,
        "id": request.id,
        "ip": request.ip,
        "geo": request.geo,
        "region": request.region,
        "deadline": request.deadline,
        "aborted": request.signal.aborted,
        "text": await request.text(),
    }


def test_everything(serve: Callable[..., Any]) -> None:
    gateway = serve(GET=show, POST=show)
    headers = [
        ("host", "test.local:3000"),
        ("user-agent", "t"),
        ("cookie", "a=1"),
        ("cookie", "b=%20"),
        ("user-agent", "u"),
    ]
    seen = gateway.call(
        "POST",
        "/api/caf%C3%A9/x?a=1&a=2&b",
        headers,
        b"hello",
        params={"id": "café", "all": ["x", "y"]},
        deadline="9.5",
    ).json()
    assert 0 < seen.pop("deadline") <= 9.5
    assert seen == {
        "method": "POST",
        "url": "http://test.local:3000/api/caf%C3%A9/x?a=1&a=2&b",
        "path": "/api/caf%C3%A9/x",
        "query": [["a", "1"], ["a", "2"], ["b", ""]],
        "headers": [list(pair) for pair in headers],
        "agent": "t, u",
        "cookies": {"a": "1", "b": " "},
        "params": {"id": "café", "all": ["x", "y"]},
        "context": True,
        "id": "id-1",
        "ip": "10.1.2.3",
        "geo": {},
        "region": None,
        "aborted": False,
        "text": "hello",
    }
    bare = gateway.call("GET", "/", region="fra1").json()
    assert bare["params"] == {} and bare["deadline"] is None and bare["region"] == "fra1"
    assert bare["url"] == "http://test.local:3000/" and bare["query"] == [] and bare["cookies"] == {}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("whole", [True, False])
def test_body_of_get_and_head_is_discarded(serve: Callable[..., Any], method: str, whole: bool) -> None:
    async def handler(request: Request) -> Any:
        return {"text": await request.text()} if request.method == "GET" else "x"

    gateway = serve(GET=handler)
    stream = gateway.send(method, "/", {}, b"unseen", whole=whole)
    if not whole:
        gateway.frame(stream, wire.BODY, b"unseen too")
        gateway.frame(stream, wire.BODY_END)
        assert gateway.wait(stream, wire.BODY_CREDIT) == (6).to_bytes(4, "big")
    answer = gateway.answer(stream)
    assert answer.body == (b'{"text":""}' if method == "GET" else b"")


async def reader(request: Request) -> Any:
    kind = request.query["as"]
    if kind == "stream":
        return {"pieces": [piece.decode() async for piece in request.stream()]}
    if kind == "json":
        return {"value": await request.json()}
    return {"value": repr(await getattr(request, kind)())}


BODIES: list[tuple[str, bytes, Any]] = [
    ("text", b"\xef\xbb\xbfa\xffb", "'a\ufffdb'"),
    ("text", b"", "''"),
    ("bytes", b"\xef\xbb\xbf\x00\xff", repr(b"\xef\xbb\xbf\x00\xff")),
    ("json", b'\xef\xbb\xbf {"a":1,"a":2}', {"a": 2}),
    ("json", b"[]", []),
]


@pytest.mark.parametrize(("kind", "body", "value"), BODIES)
@pytest.mark.parametrize("whole", [True, False])
def test_reading(serve: Callable[..., Any], kind: str, body: bytes, value: Any, whole: bool) -> None:
    gateway = serve(POST=reader)
    stream = gateway.send(
        "POST", "/?as=" + kind, {"content-type": "image/png"}, body[:2] if not whole else body, whole=whole
    )
    if not whole:
        for at in range(2, len(body)):
            gateway.frame(stream, wire.BODY, body[at : at + 1])
        gateway.frame(stream, wire.BODY_END)
    assert gateway.answer(stream).json()["value"] == value


def test_streaming_in_while_streaming_out(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> Any:
        async for piece in request.stream():
            yield piece.upper()

    gateway = serve(POST=handler)
    stream = gateway.send("POST", whole=False)
    for piece in (b"one", b"two", b"three"):
        gateway.frame(stream, wire.BODY, piece)
        while (wire.CHUNK, piece.upper()) not in gateway.frames[stream]:
            assert gateway.read()
    gateway.frame(stream, wire.BODY_END)
    assert gateway.answer(stream).chunks == [b"ONE", b"TWO", b"THREE"]


def test_answering_before_the_body_has_arrived(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> str:
        return "enough"

    gateway = serve(POST=handler)
    stream = gateway.send("POST", body=b"some", whole=False)
    assert gateway.answer(stream).text == "enough"
    gateway.frame(stream, wire.BODY, b"more of it")
    gateway.frame(stream, wire.BODY_END)
    assert gateway.call("POST").text == "enough"


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"a":Infinity}'])
def test_not_json_is_a_bad_request(serve: Callable[..., Any], body: bytes) -> None:
    kind, text = serve(POST=reader).call("POST", "/?as=json", body=body).failure
    assert kind == "bad_request" and "JSON" in text and "Traceback" not in text


def test_bad_request_can_be_caught_and_raised(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> Any:
        try:
            return await request.json()
        except ValueError as error:
            raise BadRequest("say it in JSON") from error

    assert serve(POST=handler).call("POST", body=b"x").failure == ("bad_request", "say it in JSON")


USES = ["json", "text", "bytes", "form", "stream"]


@pytest.mark.parametrize("second", USES)
@pytest.mark.parametrize("first", ["json", "stream"])
def test_the_body_can_be_used_once(serve: Callable[..., Any], first: str, second: str) -> None:
    async def use(request: Request, kind: str) -> None:
        if kind == "stream":
            async for _ in request.stream():
                pass
        else:
            await getattr(request, kind)()

    async def handler(request: Request) -> Any:
        await use(request, first)
        await use(request, second)

    kind, text = serve(POST=handler).call(
        "POST", "/", {"content-type": "application/x-www-form-urlencoded"}, b"{}"
    ).failure  # fmt: skip
    assert kind == "raised" and "RuntimeError: the request body has been read already" in text


@pytest.mark.parametrize("whole", [True, False])
def test_a_sync_handler_reads_with_a_loop_of_its_own(serve: Callable[..., Any], whole: bool) -> None:
    def handler(request: Request) -> Any:
        return asyncio.run(request.json())

    gateway = serve(POST=handler)
    stream = gateway.send("POST", body=b'{"a":' if not whole else b'{"a":1}', whole=whole)
    if not whole:
        gateway.frame(stream, wire.BODY, b"1}")
        gateway.frame(stream, wire.BODY_END)
    assert gateway.answer(stream).json() == {"a": 1}


def test_headers_and_request_are_read_only(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> Any:
        request.headers["x"] = "y"  # type: ignore[index]  # so that it is refused

    assert "TypeError" in serve(GET=handler).call().failure[1]

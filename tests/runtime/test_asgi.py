"""ASGI applications as functions: a real FastAPI application, and applications written by hand for the corners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, UploadFile
from fastapi import Request as FastRequest
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

from lampyr import after, cookies, headers
from lampyr.runtime import wire


class Item(BaseModel):
    name: str


def application() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        print("startup", flush=True)
        yield {"pool": "connected"}
        print("shutdown", flush=True)

    app = FastAPI(lifespan=lifespan)

    @app.get("/state")
    async def state(request: FastRequest) -> Any:
        return {"pool": request.state.pool, "url": str(request.url), "root": request.scope["root_path"]}

    @app.post("/items/{item_id:path}")
    def create(item_id: str, item: Item, q: str = "") -> Any:
        return {"id": item_id, "name": item.name, "q": q}

    @app.get("/")
    async def index() -> str:
        return "index"

    @app.get("/missing")
    async def missing() -> None:
        raise HTTPException(404, "no such thing")

    @app.get("/fails")
    async def fails() -> None:
        raise OSError("in the application")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            try:
                for number in range(1000):
                    yield f"{number} "
                    await asyncio.sleep(0.01)
            finally:
                print("stream closed", flush=True)

        return StreamingResponse(chunks(), media_type="text/plain")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def task() -> None:
            await asyncio.sleep(0.1)
            print("background", flush=True)

        tasks.add_task(task)
        return "answered"

    @app.post("/upload")
    async def upload(file: UploadFile) -> Any:
        return {"name": file.filename, "size": len(await file.read())}

    @app.get("/helpers")
    def helpers() -> str:
        after(print, "after", flush=True)
        cookies().set("a", "1")
        return headers().get("x-n", "")

    @app.exception_handler(ZeroDivisionError)
    async def divided(request: FastRequest, error: ZeroDivisionError) -> JSONResponse:
        return JSONResponse({"detail": "divided"}, 422)

    @app.get("/divide")
    async def divide(value: int = Depends(lambda: 1)) -> float:
        return value / 0

    return app


FOLDER = "api/[[...path]]"


@pytest.fixture
def fast(serve: Callable[..., Any]) -> Any:
    return serve(app=application(), folder=FOLDER)


def test_json_under_a_prefix(fast: Any) -> None:
    answer = fast.call("POST", "/api/items/a%20b/c?q=x", {"content-type": "application/json"}, b'{"name":"n"}')
    assert answer.status == 200 and answer.json() == {"id": "a b/c", "name": "n", "q": "x"}
    assert fast.call("POST", "/api/items/a", {"content-type": "application/json"}, b"{}").status == 422


def test_lifespan_state_and_root_path(fast: Any) -> None:
    host = {"host": "test.local:3000"}
    seen = fast.call("GET", "/api/state", host).json()
    assert seen == {"pool": "connected", "url": "http://test.local:3000/api/state", "root": "/api"}
    assert fast.log == "startup\n"
    fast.frame(0, wire.RETIRE)
    assert not fast.read() and fast.log == "startup\nshutdown\n"


def test_docs_work_under_the_prefix(fast: Any) -> None:
    page = fast.call("GET", "/api/docs")
    assert page.status == 200 and "'/api/openapi.json'" in page.text
    schema = fast.call("GET", "/api/openapi.json").json()
    assert schema["servers"] == [{"url": "/api"}] and "/items/{item_id}" in schema["paths"]


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/", 200, b'"index"'),
        ("HEAD", "/api/", 405, b""),
        ("GET", "/api/missing", 404, b'{"detail":"no such thing"}'),
        ("GET", "/api/nowhere", 404, b'{"detail":"Not Found"}'),
        ("DELETE", "/api/state", 405, b'{"detail":"Method Not Allowed"}'),
        ("GET", "/api/divide", 422, b'{"detail":"divided"}'),
        ("GET", "/api/fails", 500, b"Internal Server Error"),
    ],
)
def test_its_own_answers(fast: Any, method: str, path: str, status: int, body: bytes) -> None:
    answer = fast.call(method, path)
    assert (answer.status, answer.body, answer.failure) == (status, body, None)


def test_its_errors_are_in_the_log(fast: Any) -> None:
    fast.call("GET", "/api/fails")
    assert "OSError: in the application" in fast.wait_for_log("OSError")


def test_uploads_arrive_in_pieces(fast: Any) -> None:
    body = (
        b'--X\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"x" * 100_000 + b"\r\n--X--\r\n"
    )
    stream = fast.send(
        "POST", "/api/upload", {"content-type": "multipart/form-data; boundary=X"}, body[:9], whole=False
    )
    for at in range(9, len(body), 20_000):
        fast.frame(stream, wire.BODY, body[at : at + 20_000])
    fast.frame(stream, wire.BODY_END)
    assert fast.answer(stream).json() == {"name": "f", "size": 100_000}


def test_streaming_and_a_client_that_leaves(fast: Any) -> None:
    stream = fast.send("GET", "/api/stream")
    assert fast.wait(stream, wire.CHUNK) == b"0 "
    fast.frame(stream, wire.CANCEL, b"client")
    assert fast.answer(stream).failure[0] == "cancelled"
    assert "stream closed" in fast.log


def test_the_answer_does_not_wait_for_background_tasks(fast: Any) -> None:
    stream = fast.send("GET", "/api/background")
    fast.wait(stream, wire.ANSWER)
    assert "background" not in fast.log
    assert fast.answer(stream).kinds == [wire.AFTER, wire.ANSWER, wire.DONE] and "background" in fast.log
    assert fast.call("GET", "/api/").kinds == [wire.ANSWER]


def test_background_tasks_outlive_the_client(fast: Any) -> None:
    stream = fast.send("GET", "/api/background")
    fast.wait(stream, wire.ANSWER)
    fast.frame(stream, wire.CANCEL, b"client")
    assert fast.answer(stream).kinds[-1] == wire.DONE and "background" in fast.log


def test_helpers_work_inside(fast: Any) -> None:
    answer = fast.call("GET", "/api/helpers", {"x-n": "7"})
    assert answer.json() == "7" and answer.headers["set-cookie"] == "a=1; Path=/"
    assert answer.kinds[-1] == wire.DONE and "after" in fast.log


def test_middleware(serve: Callable[..., Any]) -> None:
    app = application()

    async def dispatch(request: FastRequest, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-middleware"] = "yes"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    gateway = serve(app=app, folder=FOLDER)
    answer = gateway.call("POST", "/api/items/1", {"content-type": "application/json"}, b'{"name":"n"}')
    assert answer.headers["x-middleware"] == "yes" and answer.json()["name"] == "n"
    stream = gateway.send("GET", "/api/stream")
    gateway.wait(stream, wire.CHUNK)
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).failure[0] == "cancelled" and "stream closed" in gateway.log


def test_websockets_are_refused(fast: Any) -> None:
    kind, text = fast.call("GET", "/api/ws", {"upgrade": "websocket", "sec-websocket-key": "x"}).failure
    assert kind == "bad_request" and "WebSockets are not carried" in text


# By hand ----------------------------------------------------------------------------------------------------------


def http(handle: Callable[..., Any]) -> Callable[..., Any]:
    """An application that knows no lifespan, as many written by hand."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


async def answer(send: Any, *bodies: bytes, status: int = 200, fields: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for body in bodies[:-1]:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": bodies[-1] if bodies else b""})


SCOPES: list[tuple[str, str, dict[str, Any]]] = [
    ("api/[[...path]]", "/api", {"path": "/api", "root_path": "/api", "raw_path": b"/api"}),
    ("api/[[...path]]", "/api/a%2Fb/?q=%20", {"path": "/api/a/b/", "root_path": "/api", "raw_path": b"/api/a%2Fb/",
                                              "query_string": b"q=%20"}),
    ("[[...path]]", "/caf%C3%A9", {"path": "/café", "root_path": ""}),
    ("(group)/v1/[user]/[...path]", "/v1/j%C3%B6/x", {"path": "/v1/jö/x", "root_path": "/v1/jö"}),
    ("api/exact", "/api/exact", {"path": "/api/exact", "root_path": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "target", "expected"), SCOPES)
def test_scope(serve: Callable[..., Any], folder: str, target: str, expected: dict[str, Any]) -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        scope["body"] = await receive()
        await answer(send, repr(scope).encode())

    scope = eval(serve(app=http(handle), folder=folder).call("POST", target, [("X-A", "1")], b"hi").text)
    common = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "headers": [(b"x-a", b"1")], "client": ("10.1.2.3", 0), "server": ("test.local", 3000),
        "state": {}, "extensions": {}, "query_string": b"", "raw_path": target.encode(),
        "body": {"type": "http.request", "body": b"hi", "more_body": False},
    }  # fmt: skip
    assert scope == common | expected


async def chunked(scope: Any, receive: Any, send: Any) -> None:
    await answer(
        send, b"", b"a", b"b", fields=[(b"Content-Type", b"x/y"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    )


async def whole(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"whole", status=201)


async def large(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x" * 600_000)


ANSWERS: list[tuple[Any, list[int], int, bytes]] = [
    (whole, [wire.ANSWER], 201, b"whole"),
    (chunked, [wire.HEAD, wire.CHUNK, wire.CHUNK, wire.CHUNK, wire.END], 200, b"ab"),
    (large, [wire.HEAD, wire.CHUNK, wire.CHUNK, wire.CHUNK, wire.END], 200, b"x" * 600_000),
]


@pytest.mark.parametrize(("handle", "kinds", "status", "body"), ANSWERS)
def test_answers(serve: Callable[..., Any], handle: Any, kinds: list[int], status: int, body: bytes) -> None:
    gateway = serve(app=http(handle))
    got = gateway.call()
    assert (got.kinds, got.status, got.body) == (kinds, status, body)
    assert gateway.call("HEAD").body == b""


def test_repeated_headers(serve: Callable[..., Any]) -> None:
    assert serve(app=http(chunked)).call().fields == [
        ("content-type", "x/y"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    return


async def only_starts(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


async def no_start(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body"})


async def twice(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 200})


async def unknown(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})


async def bad_status(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"", status=99)


async def injects(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"", fields=[(b"a", b"b\r\nc: d")])


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"a", b"b", b"")
    raise OSError


@pytest.mark.parametrize("handle", [nothing, only_starts, no_start, twice, unknown, bad_status, injects])
def test_failures(serve: Callable[..., Any], handle: Any) -> None:
    got = serve(app=http(handle)).call()
    assert got.kinds == [wire.FAIL] and got.failure[0] == "raised"


def test_failing_in_the_middle_cuts(serve: Callable[..., Any]) -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise OSError

    got = serve(app=http(handle)).call()
    assert got.kinds == [wire.HEAD, wire.CHUNK, wire.FAIL]


def test_failing_after_the_last_byte_is_only_logged(serve: Callable[..., Any]) -> None:
    gateway = serve(app=http(breaks))
    assert gateway.call().kinds[-1] == wire.END and "OSError" in gateway.wait_for_log("OSError")


def test_disconnect_is_heard_before_the_cancellation(serve: Callable[..., Any]) -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        print((await receive())["type"], flush=True)

    gateway = serve(app=http(handle))
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).failure[0] == "cancelled" and "http.disconnect" in gateway.log


@pytest.mark.parametrize("reason", [b"client", b"deadline"])
def test_who_does_not_listen_is_cancelled(serve: Callable[..., Any], reason: bytes) -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            print("finally", flush=True)

    gateway = serve(app=http(handle))
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, reason)
    assert gateway.answer(stream).failure[0] == "cancelled" and "finally" in gateway.log


def test_a_startup_that_fails_fails_every_request(serve: Callable[..., Any]) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    gateway = serve(app=FastAPI(lifespan=lifespan), folder=FOLDER)
    kind, text = gateway.call("GET", "/api/").failure
    assert kind == "raised" and "no database" in text
    assert not gateway.read()

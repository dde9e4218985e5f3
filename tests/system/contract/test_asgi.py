"""SPEC 2: an ASGI application as a function. The application is plain FastAPI; nothing in it knows of us."""

from __future__ import annotations

import hashlib
import time
import zlib

import pytest
from contract import Place

APPLICATION = """
    import asyncio
    import contextlib

    import marks
    from fastapi import BackgroundTasks, FastAPI, File, HTTPException, Request, Response, UploadFile, WebSocket
    from fastapi.responses import RedirectResponse, StreamingResponse

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.greeting = "from the lifespan"
        yield {"shared": "in the state"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request):
        return {"root_path": request.scope["root_path"], "path": request.scope["path"], "url": str(request.url)}

    @app.get("/items/{item}")
    def item(item: int, q: str | None = None):
        return {"item": item, "q": q}

    @app.get("/tidy")
    async def tidy():
        return "no slash"

    @app.get("/slashed/")
    async def slashed():
        return "a slash"

    @app.get("/raw/{rest:path}")
    async def raw(rest: str, request: Request):
        return [rest, request.scope["raw_path"].decode()]

    @app.get("/lifespan")
    async def alive(request: Request):
        return [app.state.greeting, request.state.shared]

    @app.get("/missing")
    async def missing():
        raise HTTPException(418, "a teapot", {"x-pot": "tea"})

    @app.get("/raises")
    async def raises():
        raise RuntimeError("secret words")

    @app.get("/away")
    async def away():
        return RedirectResponse("/elsewhere", 303)

    @app.get("/cookies")
    async def cookies(response: Response):
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return None

    @app.post("/upload")
    async def upload(file: UploadFile = File()):
        import hashlib
        data = await file.read()
        return [file.filename, len(data), hashlib.sha256(data).hexdigest()]

    @app.get("/stream")
    async def stream(mark: str):
        async def parts():
            try:
                for number in range(3):
                    await marks.gate(f"{mark}-{number}")
                    yield f"{number} "
            finally:
                marks.reach(f"{mark}-closed")
        return StreamingResponse(parts(), media_type="text/plain")

    @app.get("/endless")
    async def endless(mark: str):
        async def parts():
            try:
                while True:
                    yield "tick "
                    marks.reach(f"{mark}-began")
                    await asyncio.sleep(0.02)
            finally:
                marks.reach(f"{mark}-closed")
        return StreamingResponse(parts())

    @app.get("/background")
    async def background(mark: str, tasks: BackgroundTasks):
        async def later():
            await marks.gate(f"{mark}-go")
            marks.reach(f"{mark}-done")
        tasks.add_task(later)
        return "answered"

    @app.websocket("/socket")
    async def websocket(socket: WebSocket):
        await socket.accept()
"""
ROUTES = {"fast/[[...path]]": APPLICATION}


@pytest.mark.parametrize(
    ("method", "path", "status", "value"),
    [
        ("GET", "/items/7?q=%C3%A9", 200, {"item": 7, "q": "é"}),
        ("GET", "/lifespan", 200, ["from the lifespan", "in the state"]),
        ("GET", "/missing", 418, {"detail": "a teapot"}),
        ("GET", "/nowhere", 404, {"detail": "Not Found"}),
        ("POST", "/tidy", 405, {"detail": "Method Not Allowed"}),
        ("OPTIONS", "/tidy", 405, {"detail": "Method Not Allowed"}),
        # a slash at the end, and one that is missing, are the application's business; so are `//` and %2F
        ("GET", "/slashed/", 200, "a slash"),
        ("GET", "/raw/a//b/", 200, ["a//b/", "/raw/a//b/"]),
        ("GET", "/raw/a%2Fb", 200, ["a/b", "/raw/a%2Fb"]),
        ("GET", "/raw/x/../y", 200, ["y", "/raw/y"]),
    ],
)
def test_its_own_answers(place: Place, method: str, path: str, status: int, value: object) -> None:
    reply = place.ask(f"/fast{path}", method)
    found = reply.json()
    if "/raw/" in path:
        found[1] = found[1].removeprefix(f"/{place.runtime}/fast")
    assert (reply.status, reply["content-type"], found) == (status, "application/json", value)
    assert reply.error is None


@pytest.mark.parametrize("path", ["/fast", "/fast/"])
def test_the_folder_is_its_root(place: Place, path: str) -> None:
    reply = place.ask(path)
    if path == "/fast" and reply.status == 307:  # Starlette's own answer to an empty path
        assert reply["location"] == f"http://app.example/{place.runtime}/fast/"
        return
    said = reply.json()
    assert said["root_path"] == f"/{place.runtime}/fast"
    assert said["url"].startswith(f"http://app.example/{place.runtime}/fast")


@pytest.mark.parametrize(
    ("path", "location"),
    [("/tidy/", "http://app.example/{runtime}/fast/tidy"), ("/slashed", "http://app.example/{runtime}/fast/slashed/")],
)
def test_slashes_are_redirected_by_the_application_only(place: Place, path: str, location: str) -> None:
    reply = place.ask(f"/fast{path}")
    assert (reply.status, reply["location"]) == (307, location.format(runtime=place.runtime))


def test_its_documentation_works_under_the_prefix(place: Place) -> None:
    page = place.ask("/fast/docs")
    assert page.status == 200 and f"/{place.runtime}/fast/openapi.json".encode() in page.body
    schema = place.ask("/fast/openapi.json").json()
    assert schema["servers"] == [{"url": f"/{place.runtime}/fast"}] and "/items/{item}" in schema["paths"]


def test_head_of_what_has_no_head_is_the_applications_answer(place: Place) -> None:
    reply = place.ask("/fast/tidy", "HEAD")
    assert (reply.status, reply["allow"]) == (405, "GET")


def test_repeated_fields_and_redirects(place: Place) -> None:
    assert [line.split(";")[0] for line in place.ask("/fast/cookies").all("set-cookie")] == ["a=1", "b=2"]
    reply = place.ask("/fast/away")
    assert (reply.status, reply["location"]) == (303, "/elsewhere")


def test_an_error_is_the_applications_500_and_in_the_log(place: Place) -> None:
    reply = place.ask("/fast/raises")
    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    place.said(reply["x-lampyr-id"], "RuntimeError: secret words")


def test_an_upload(place: Place) -> None:
    data = bytes(range(256)) * 8000
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"
    reply = place.ask("/fast/upload", "POST", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.json() == ["x.bin", len(data), hashlib.sha256(data).hexdigest()]


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_a_streaming_response_is_a_chunk_for_each_part(place: Place, mark: str, coding: str | None) -> None:
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with place.open(f"/fast/stream?mark={mark}", {"Accept-Encoding": coding} if coding else {}) as line:
        for number in range(3):
            place.let(f"{mark}-{number}")
            if number == 0:
                reply = line.head()
                assert reply["content-encoding"] == coding
            chunk = line.chunk()
            assert (unzip.decompress(chunk) if coding else chunk) == f"{number} ".encode()
        assert line.rest(reply).whole
    place.reached(f"{mark}-closed")


def test_a_client_that_leaves(place: Place, mark: str) -> None:
    line = place.open(f"/fast/endless?mark={mark}")
    place.reached(f"{mark}-began")
    left = time.time()
    line.close()
    place.reached(f"{mark}-closed")
    assert (place.marks / f"{mark}-closed").stat().st_mtime - left < 6


def test_background_tasks_run_behind_the_answer(place: Place, mark: str) -> None:
    assert place.ask(f"/fast/background?mark={mark}").json() == "answered"
    place.let(f"{mark}-go")
    place.reached(f"{mark}-done")


def test_a_websocket_is_refused_in_words(place: Place) -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    reply = place.ask("/fast/socket", headers=handshake)
    assert (reply.status, reply.error) == (400, "BAD_REQUEST")
    assert "WebSockets are not carried" in reply.json()["error"]["message"]

"""SPEC 3, the front door: what it refuses, how long it waits, whom it believes, and what every response carries."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator

import pytest
from serving import Serve, Server, running

from lampyr.gateway.connections import Connections
from lampyr.gateway.http import Connection, Exchange

# Status, headers, and everything behind the head.
Reply = tuple[int, dict[str, str], bytes]

PROJECT = {
    "app/api/who/route.py": """
        def GET(req):
            return {"ip": req.ip, "url": req.url}

        async def POST(req):
            return {"length": len(await req.bytes())}
    """,
    "app/api/stream/route.py": """
        def GET():
            yield "one"
            yield "two"
    """,
    "public/a.txt": "a",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("front"), PROJECT) as server:
        yield server


def exchange(server: Server, data: bytes) -> Reply:
    """Send bytes, read until the server closes: the first response's status and headers, and all behind its head."""
    with server.connect() as sock:
        sock.sendall(data)
        return parse(read_all(sock))


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def parse(data: bytes) -> Reply:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


GET = b"GET /api/who HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /api/who HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "a method outside the seven": (b"BREW /api/who HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
    "a request line of more than 8 KiB": (
        b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "URL_TOO_LONG",
    ),
    "101 headers": (GET + b"a: b\r\n" * 100 + b"\r\n", 431, "REQUEST_HEADER_TOO_LARGE"),
    "more than 32 KiB of headers": (GET + b"a: " + b"b" * 32768 + b"\r\n\r\n", 431, "REQUEST_HEADER_TOO_LARGE"),
    "another expectation": (POST + b"Expect: tea\r\nContent-Length: 1\r\n\r\nx", 417, "EXPECTATION_FAILED"),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400, "BAD_REQUEST"),
    "two equal lengths": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "BAD_REQUEST"),
    "a list of lengths": (POST + b"Content-Length: 1, 1\r\n\r\nx", 400, "BAD_REQUEST"),
    "a length with a sign": (POST + b"Content-Length: +1\r\n\r\nx", 400, "BAD_REQUEST"),
    "a length and chunks": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "BAD_REQUEST",
    ),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
    "chunks twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
                     "BAD_REQUEST"),
    "chunks in HTTP/1.0": (
        b"POST /api/who HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "BAD_REQUEST",
    ),
    "a chunk size with a sign": (POST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
    "a chunk that ends with a bare LF": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n", 400, "BAD_REQUEST",
    ),
    "a space before the colon": (POST + b"Content-Length : 1\r\n\r\nx", 400, "BAD_REQUEST"),
    "a folded header": (GET + b"a: b\r\n c\r\n\r\n", 400, "BAD_REQUEST"),
    "a bare LF": (b"GET /api/who HTTP/1.1\nHost: x\n\n", 400, "BAD_REQUEST"),
    "a bare CR in a value": (GET + b"a: b\rc\r\n\r\n", 400, "BAD_REQUEST"),
    "a NUL in a value": (GET + b"a: \0\r\n\r\n", 400, "BAD_REQUEST"),
    "no host": (b"GET /api/who HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400, "BAD_REQUEST"),
    "HTTP/0.9": (b"GET /api/who\r\n\r\n", 400, "BAD_REQUEST"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "BAD_REQUEST"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_long_or_ambiguous_is_refused_and_the_connection_closed(server: Server, name: str) -> None:
    data, status, code = REFUSED[name]
    smuggled = b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n"
    got, headers, body = exchange(server, data + smuggled)
    assert (got, headers["x-lampyr-error"], headers["connection"]) == (status, code, "close")
    error = json.loads(body)["error"]  # and nothing behind it: what follows was not served
    assert error["code"] == code and error["id"] == headers["x-lampyr-id"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * (8192 - len("GET / HTTP/1.1")) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        GET + b"a: b\r\n" * 98 + b"Connection: close\r\n\r\n",
        GET + b"a: " + b"b" * 32700 + b"\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_just_fits_is_served(server: Server, data: bytes) -> None:
    assert exchange(server, data)[0] in (200, 404)


def test_one_connection_serves_several_requests_and_http_1_0_ends_it(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(GET + b"\r\n" + POST + b"Content-Length: 2\r\n\r\nxy" + b"GET /api/who HTTP/1.0\r\n\r\n")
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 200 ") == 3 and b'{"length":2}' in data


@pytest.mark.parametrize("path", ["/api/who", "/api/stream", "/a.txt", "/nowhere", "/api/who/", "/_lampyr/env.js"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE"])
def test_every_response_carries_its_id_and_its_timing(server: Server, method: str, path: str) -> None:
    headers = server.request(method, path).headers
    assert len(headers["x-lampyr-id"]) > 10
    queue, init = headers["server-timing"].split(", ")[:2]
    assert queue.startswith("queue;dur=")
    assert init.startswith("init;dur=") and init.endswith((";desc=cold", ";desc=warm"))


def test_exec_is_measured_where_the_body_is_no_stream(server: Server) -> None:
    assert ", exec;dur=" in server.get("/api/who").headers["server-timing"]
    assert "exec" not in server.get("/api/stream").headers["server-timing"]


def test_the_variables_for_browsers_answer_get_and_head_only(server: Server) -> None:
    asked = {method: server.request(method, "/_lampyr/env.js") for method in ("OPTIONS", "POST", "DELETE")}
    assert {method: answer.status for method, answer in asked.items()} == {"OPTIONS": 204, "POST": 405, "DELETE": 405}
    assert {answer.headers["allow"] for answer in asked.values()} == {"GET, HEAD"}


def test_a_request_that_names_no_host_was_meant_for_this_address(server: Server) -> None:
    _, _, body = exchange(server, b"GET /api/who HTTP/1.0\r\n\r\n")
    assert json.loads(body)["url"] == f"http://127.0.0.1:{server.port}/api/who"


FORWARDED = {
    "X_Forwarded_For": "203.0.113.9, 198.51.100.7",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "app.example",
}


def test_forwarded_headers_are_not_believed_from_anybody(server: Server) -> None:
    seen = server.get("/api/who", **FORWARDED).json()
    assert seen == {"ip": "127.0.0.1", "url": f"http://127.0.0.1:{server.port}/api/who"}


def test_forwarded_headers_are_believed_from_trusted_proxies(serve: Serve) -> None:
    server = serve({**PROJECT, "lampyr.toml": '[server]\ntrusted_proxies = ["127.0.0.0/8", "198.51.100.0/24"]\n'})
    seen = server.get("/api/who", **FORWARDED).json()
    assert seen == {"ip": "203.0.113.9", "url": "https://app.example/api/who"}
    for host in ("no host", "a, b", "a/b", "user@app.example", ""):
        seen = server.get("/api/who", **{**FORWARDED, "X_Forwarded_Host": host}).json()
        assert seen["url"] == f"https://127.0.0.1:{server.port}/api/who"


def test_a_forwarded_address_may_have_a_port_and_is_an_address(serve: Serve) -> None:
    """What is neither is not believed, nor what stands in front of it."""
    server = serve({**PROJECT, "lampyr.toml": '[server]\ntrusted_proxies = ["127.0.0.0/8", "2001:db8::/32"]\n'})
    for said, ip in {
        "203.0.113.9:5678": "203.0.113.9",
        "[2001:db9::1]:443": "2001:db9::1",
        "[2001:db9::1]": "2001:db9::1",
        "2001:db9::1": "2001:db9::1",
        "203.0.113.9:1, [2001:db8::1]:443": "203.0.113.9",
        **dict.fromkeys(("203.0.113.9:", "203.0.113.9:x", "203.0.113:80", "203.0.113.9:123456"), "127.0.0.1"),
        **dict.fromkeys(("[203.0.113.9]:80", "[2001:db9::1", "2001:db9::1]:4", "[]:80", "unknown"), "127.0.0.1"),
        "203.0.113.9, _hidden, 127.0.0.7:80": "127.0.0.7",
    }.items():
        assert server.get("/api/who", X_Forwarded_For=said).json()["ip"] == ip, said


def test_one_connection_more_than_there_may_be_is_throttled(serve: Serve) -> None:
    server = serve({**PROJECT, "lampyr.toml": "[server]\nmax_connections = 1\n"})
    with server.connect() as first:
        first.sendall(GET + b"\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        status, headers, _ = exchange(server, b"")
    assert (status, headers["x-lampyr-error"]) == (503, "FUNCTION_THROTTLED")
    assert int(headers["retry-after"]) > 0


def test_a_head_may_take_15_seconds_and_a_body_may_be_silent_for_60() -> None:
    limits = Connections()
    assert (limits.head_timeout_s, limits.body_timeout_s) == (15, 60)


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHo", b""),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),  # a head that drips is as late as one that stops
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b""),
    ],
)
def test_who_is_too_slow_is_told_so(begun: bytes, more: bytes) -> None:
    status, headers, body = asyncio.run(knock(_never, begun, more))
    assert (status, headers["x-lampyr-error"], json.loads(body)["error"]["id"]) == (408, "REQUEST_TIMEOUT", "the-id")


def test_a_fault_of_our_own_is_an_internal_error_and_shows_nothing_of_it() -> None:
    status, headers, body = asyncio.run(knock(_broken, GET + b"\r\n"))
    assert (status, headers["x-lampyr-error"], json.loads(body)["error"]["id"]) == (500, "INTERNAL_ERROR", "the-id")
    assert b"ZeroDivision" not in body


async def knock(serve: Callable[[Exchange], None], begun: bytes, more: bytes = b"") -> Reply:
    """The answer of a front door of little patience; `more` is sent over and over until it comes."""
    limits = Connections(head_timeout_s=0.3, body_timeout_s=0.3, sweep_s=0.02)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    door = await loop.create_server(lambda: Connection(serve, lambda: "the-id", limits), "127.0.0.1", 0)
    async with door:
        reader, writer = await asyncio.open_connection(*door.sockets[0].getsockname()[:2])
        writer.write(begun)
        answer = asyncio.create_task(reader.read(65536))
        while more and not answer.done():
            writer.write(more)
            await asyncio.wait([answer], timeout=0.05)
        data = await asyncio.wait_for(answer, 40)
        writer.close()
    return parse(data)


def _never(exchange: Exchange) -> None:
    """A function that waits for the whole body."""


def _broken(exchange: Exchange) -> None:
    """A gateway with a fault."""
    raise ZeroDivisionError


def test_below_an_application_a_file_has_one_spelling_and_others_are_the_applications(serve: Serve) -> None:
    server = serve({
        "public/style.css": "a file",
        "public/_lampyr/env.js": "never served",
        "app/[[...all]]/route.py": """
            async def app(scope, receive, send):
                if scope["type"] == "http":
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": scope["path"].encode()})
        """,
    })  # fmt: skip
    assert server.get("/style.css").body == b"a file"
    assert server.get("/style.css/").body == b"/style.css/"
    assert server.get("//style.css").body == b"//style.css"
    assert server.get("/nothing/").body == b"/nothing/"
    assert server.get("/_lampyr/env.js").body.startswith(b"window.env")
    server.log(r"^lampyr: warning: public/_lampyr: never served, .*public/_lampyr/env\.js$")

"""SPEC 2, Request: what a handler sees of what a client sent, up to the limits of a body."""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import Any

import pytest
from contract import Place, express
from serving import until

FORM = "multipart/form-data; boundary=xx"
BINARY = bytes(range(256)) + b"\r\n\r\n--xx-\r\n--\r\n\n\r\0"


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A form of (Content-Disposition parameters and further lines, content)."""
    made = b"".join(b"--xx\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (d.encode(), c) for d, c in parts)
    return made + b"--xx--\r\n"


def get(name: str, expression: str, query: str = "", sees: Any = None, **headers: str) -> Any:
    """A row: what the expression gives for a GET with this query and these headers."""
    return pytest.param(f"{name}{'?' + query if query else ''}", expression, headers, None, sees, id=name)


def post(name: str, expression: str, body: bytes, sees: Any, **headers: str) -> Any:
    """A row: what the expression gives for a POST of this body."""
    return pytest.param(name, expression, headers, body, sees, id=name)


SEES = [
    get("method", "req.method", sees="GET"),
    get("path", "req.path.rsplit('/', 1)[1]", "a=1", sees="path"),
    get("url", "req.url", "a=%41&b=%C3%A9", sees=None),
    get("ip", "req.ip", sees="127.0.0.1"),
    get("geo-and-region", "[req.geo, req.region]", sees=[{}, None]),
    get("not-aborted", "[req.signal.aborted]", sees=[False]),
    # the query, as the WHATWG URL standard reads it
    get("query-get", "[req.query.get('a'), req.query.get('x'), req.query.get('x', 7)]", "a=1", [ "1", None, 7]),
    get("query-first", "req.query.get('a')", "a=1&a=2", "1"),
    get("query-getall", "req.query.getall('a')", "a=1&b=&a=2&a", ["1", "2", ""]),
    get("query-items", "req.query.items()", "b=1&a=2&b=3", [["b", "1"], ["a", "2"], ["b", "3"]]),
    get("query-plus", "req.query.items()", "a+b=c+d%2Be", [["a b", "c d+e"]]),
    get("query-semicolon", "req.query.items()", "a=1;b=2", [["a", "1;b=2"]]),
    get("query-equals", "req.query.items()", "a=b=c&=d&e", [["a", "b=c"], ["", "d"], ["e", ""]]),
    get("query-empty-pieces", "req.query.items()", "&&a=1&&", [["a", "1"]]),
    get("query-bad-escape", "req.query.items()", "a=%zz%4&%=%", [["a", "%zz%4"], ["%", "%"]]),
    get("query-not-utf8", "req.query.items()", "a=%ff%C3", [["a", "\ufffd\ufffd"]]),
    get("query-utf8", "req.query.items()", "%E2%82%AC=%C3%A9", [["€", "é"]]),
    get("query-brackets", "req.query.items()", "a[]=1&a[b]=2", [["a[]", "1"], ["a[b]", "2"]]),
    get("query-question", "req.query.items()", "?a=?", [["?a", "?"]]),
    get("query-none", "req.query.items()", sees=[]),
    # cookies
    get("cookie", "[req.cookies.get('a'), req.cookies.get('b')]", sees=["1", "x y"], Cookie="a=1; b=x%20y"),
    get("cookie-missing", "[req.cookies.get('c'), req.cookies.has('c')]", sees=[None, False], Cookie="a=1"),
    get("cookie-all", "dict(req.cookies.all())", sees={"a": "1", "b": "2=3"}, Cookie="a=1; b=2=3"),
    get("cookie-none", "dict(req.cookies.all())", sees={}),
    get("cookie-quoted", "req.cookies.get('a')", sees='"q"', Cookie='a="q"'),
    # header fields
    get("header", "[req.headers['X-a'], req.headers.get('x-A')]", sees=["1", "1"], **{"X-A": "1"}),
    get("header-missing", "[req.headers.get('x-b'), 'x-b' in req.headers]", sees=[None, False]),
    get("header-space", "req.headers.get('x-a')", sees="a  b", **{"X-A": "  a  b \t"}),
    get("header-latin", "req.headers.get('x-a') == 'Ã©'", sees=True, **{"X-A": "é"}),
    get("host", "req.headers.get('host')", sees="app.example"),
    # bodies
    get("get-has-no-body", "await req.text()", sees="", **{"Content-Length": "0"}),
    post("text", "await req.text()", "héllo €\r\n".encode(), "héllo €\r\n"),
    post("text-bom", "await req.text()", b"\xef\xbb\xbf\xef\xbb\xbfx", "\ufeffx"),
    post("text-not-utf8", "await req.text()", b"a\xffb\xc3", "a\ufffdb\ufffd"),
    post("text-empty", "await req.text()", b"", ""),
    post("text-nul", "await req.text()", b"a\0b", "a\0b"),
    post("bytes", "list(await req.bytes())", BINARY, list(BINARY)),
    post("json", "await req.json()", b' {"a": [1, 2.5, null, "\\u00e9"]}\n', {"a": [1, 2.5, None, "é"]}),
    post("json-bom", "await req.json()", b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    post("json-not-utf8", "await req.json()", b'"a\xff"', "a\ufffd"),
    post("json-scalar", "[await req.json()]", b"0", [0]),
    post("json-large-number", "str(await req.json())", b"12345678901234567890123", "12345678901234567890123"),
    post("json-whatever-type", "await req.json()", b"[]", [], **{"Content-Type": "image/png"}),
    post("json-equal-keys", "await req.json()", b'{"a":1,"a":2}', {"a": 2}),
    post("stream", "b''.join([piece async for piece in req.stream()]).decode()", b"abc", "abc"),
    # forms
    post("form", "(await req.form()).items()", b"a=1&b=x+y&a=%C3%A9", [["a", "1"], ["b", "x y"], ["a", "é"]],
         **{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}),
    post("form-empty", "(await req.form()).items()", b"", [], **{"Content-Type": "application/x-www-form-urlencoded"}),
    post("multipart", "(await req.form()).items()",
         multipart(('name="a"', b"1"), ('name="a"', b"x\r\ny"), ('name="\xe9"', "é".encode()), ('name=""', b"")),
         [["a", "1"], ["a", "x\r\ny"], ["é", "é"], ["", ""]], **{"Content-Type": FORM}),
    post("multipart-file", "described((await req.form()).get('f'))",
         multipart(('name="f"; filename="a b.bin"\r\nContent-Type: image/x-thing', BINARY)),
         ["a b.bin", "image/x-thing", len(BINARY), hashlib.sha256(BINARY).hexdigest()], **{"Content-Type": FORM}),
    post("multipart-file-names", "[f.filename for f in (await req.form()).getall('f')]",
         multipart(('name="f"; filename="../../etc/passwd"', b""), ('name="f"; filename="%22é%0D%0A.txt"', b"")),
         ["../../etc/passwd", '"é\r\n.txt'], **{"Content-Type": FORM}),
    post("multipart-empty-file", "described((await req.form()).get('f'))",
         multipart(('name="f"; filename=""', b"")),
         ["", "text/plain", 0, hashlib.sha256(b"").hexdigest()], **{"Content-Type": FORM}),
    post("multipart-large-file", "described((await req.form()).get('f'))",
         multipart(('name="f"; filename="f"', BINARY * 10_000)),
         ["f", "text/plain", len(BINARY) * 10_000, hashlib.sha256(BINARY * 10_000).hexdigest()],
         **{"Content-Type": FORM}),
    # what cannot be read can be caught, and a body is there once
    post("caught", "await attempt(req.json())", b"{", "BadRequest ValueError"),
    post("twice", "[await req.text(), await attempt(req.text())]", b"x", ["x", "RuntimeError"]),
    post("twice-form", "[await req.bytes() != b'', await attempt(req.form())]", b"x", [True, "RuntimeError"],
         **{"Content-Type": "application/x-www-form-urlencoded"}),
]  # fmt: skip
REFUSED = {
    "empty": (b"", "application/json"),
    "white": (b" \n", "application/json"),
    "cut": (b'{"a":', "application/json"),
    "nan": (b"NaN", "application/json"),
    "nan-inside": (b'{"a":[NaN]}', "application/json"),
    "infinity": (b"Infinity", "application/json"),
    "minus-infinity": (b"[-Infinity]", "application/json"),
    "two": (b"1 2", "application/json"),
    "single-quotes": (b"{'a':1}", "application/json"),
    "trailing-comma": (b"[1,]", "application/json"),
    "comment": (b"[1] // x", "application/json"),
    "leading-zero": (b"01", "application/json"),
    "control": (b'"a\nb"', "application/json"),
    "deep": (b"[" * 100_000, "application/json"),
    "form-json": (b"{}", "application/json"),
    "form-no-boundary": (b"--xx--", "multipart/form-data"),
    "form-cut": (multipart(('name="a"', b"1"))[:-8], FORM),
    "form-not-a-form": (b"hello", FORM),
    "form-no-name": (multipart(("x", b"1")), FORM),
}

READS = """
    import hashlib

    async def attempt(reading):
        try:
            await reading
        except Exception as error:
            return type(error).__name__ + " ValueError" * isinstance(error, ValueError)

    def described(file):
        data = file.read()
        return [file.filename, file.content_type, file.size, hashlib.sha256(data).hexdigest()]

    def as_json(value):
        from lampyr import Response
        return Response.json(value)
"""
READERS = {name: f"await req.{'form' if name.startswith('form') else 'json'}()" for name in REFUSED}
ROUTES = {
    "sees/[row]": express(
        [("id", "as_json(req.id)"), ("deadline", "as_json(req.deadline)")]
        + [(str(row.id), f"as_json({row.values[1]})") for row in SEES],
        READS,
    ),
    "refuses/[row]": express(READERS.items()),
    "limited": """
        import marks
        max_body = 1000

        async def POST(req):
            marks.note("limited", req.query.get("mark"))
            return {"length": len(await req.bytes())}

        async def GET(req):
            return {"length": len(await req.bytes())}
    """,
    "slow-to-stop": """
        import asyncio
        import marks
        max_body = 100_000

        async def GET(req):
            return "free"

        async def POST(req):
            marks.note("slow-to-stop", "begun")
            try:
                return {"length": len(await req.bytes())}
            finally:
                await asyncio.sleep(0.3)
    """,
    "upload": """
        import hashlib

        async def POST(req):
            digest, length = hashlib.sha256(), 0
            async for piece in req.stream():
                digest.update(piece)
                length += len(piece)
            return [length, digest.hexdigest()]
    """,
    "echo": """
        async def POST(req):
            async for piece in req.stream():
                yield piece.decode()
    """,
    "get-only": "def GET(): return ''",
    "early": "async def POST(req): return 'an answer'",
}


@pytest.mark.parametrize(("target", "expression", "headers", "body", "sees"), SEES)
def test_a_handler_sees(
    place: Place, target: str, expression: str, headers: dict[str, str], body: bytes | None, sees: Any
) -> None:
    reply = place.ask(f"/sees/{target}", "GET" if body is None else "POST", body, headers)
    assert reply.status == 200, reply.body
    if expression == "req.url":
        assert reply.json() == f"http://app.example/{place.runtime}/sees/{target}"
    else:
        assert reply.json() == sees


@pytest.mark.parametrize("row", REFUSED)
def test_400_for_a_body_that_cannot_be_read_as_asked(place: Place, row: str) -> None:
    body, content_type = REFUSED[row]
    reply = place.ask(f"/refuses/{row}", "POST", body, {"Content-Type": content_type})
    assert (reply.status, reply.error) == (400, "BAD_REQUEST")


def test_a_form_needs_a_content_type(place: Place) -> None:
    assert place.ask("/refuses/form-json", "POST", b"a=1").status == 400


def test_the_deadline_is_that_of_the_runtime(place: Place) -> None:
    deadline = place.ask("/sees/deadline").json()
    assert deadline is None if place.runtime == "edge" else 5 < deadline <= 10


def test_the_id_of_a_request_is_that_of_its_response(place: Place) -> None:
    reply = place.ask("/sees/id")
    assert reply.json() == reply["x-lampyr-id"]


# --- limits and uploads


@pytest.mark.parametrize(
    ("length", "chunked", "status"),
    [
        (0, False, 200),
        (1000, False, 200),
        (1000, True, 200),
        (1001, False, 413),
        (1001, True, 413),
        (200_000, False, 413),
        (200_000, True, 413),
    ],
)
def test_max_body(place: Place, mark: str, length: int, chunked: bool, status: int) -> None:
    with place.line() as line:
        path = f"/{place.runtime}/limited?mark={mark}"
        if chunked:
            line.ask("POST", path, {"Transfer-Encoding": "chunked"})
            for start in range(0, length, 500):
                line.send_chunk(b"x" * min(500, length - start))
            line.send(b"0\r\n\r\n")
        else:
            line.ask("POST", path, body=b"x" * length)
        reply = line.reply()
        assert reply.status == status
        if status == 413:
            assert reply.error == "FUNCTION_PAYLOAD_TOO_LARGE"
        else:
            assert reply.json() == {"length": length}
    if not chunked:
        ran = (place.marks / "limited").exists() and mark in (place.marks / "limited").read_text().split()
        assert ran == (status == 200)


def test_a_body_of_get_is_discarded(place: Place) -> None:
    with place.line() as line:
        for _ in range(2):
            reply = line.ask("GET", f"/{place.runtime}/limited", body=b"x" * 500).reply()
            assert reply.json() == {"length": 0}


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_of_4_mb(place: Place, chunked: bool) -> None:
    body = hashlib.sha256(b"seed").digest() * 125_000
    with place.line() as line:
        if chunked:
            line.ask("POST", f"/{place.runtime}/upload", {"Transfer-Encoding": "chunked"})
            for start in range(0, len(body), 100_000):
                line.send_chunk(body[start : start + 100_000])
            line.send(b"0\r\n\r\n")
        else:
            line.ask("POST", f"/{place.runtime}/upload", body=body)
        assert line.reply().json() == [len(body), hashlib.sha256(body).hexdigest()]


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_above_the_default_max_body(place: Place, chunked: bool) -> None:
    size = 4_500_001
    with place.line() as line:
        if chunked:
            line.ask("POST", f"/{place.runtime}/upload", {"Transfer-Encoding": "chunked"})
            line.send_chunk(b"x" * size)
        else:
            line.ask("POST", f"/{place.runtime}/upload", {"Content-Length": str(size)})
        reply = line.reply()
    assert (reply.status, reply.error) == (413, "FUNCTION_PAYLOAD_TOO_LARGE")


def test_a_request_behind_a_body_that_grew_too_large(place: Place) -> None:
    """The place of the refused call is free only when its handler has stopped."""
    for _ in range(2):
        (place.marks / "slow-to-stop").unlink(missing_ok=True)
        with place.line() as line:
            line.ask("POST", f"/{place.runtime}/slow-to-stop", {"Transfer-Encoding": "chunked"})
            line.send_chunk(b"x")
            until(lambda: (place.marks / "slow-to-stop").exists(), "the handler to begin")
            line.send_chunk(b"x" * 100_000)
            reply = line.reply()
        assert (reply.status, reply.error) == (413, "FUNCTION_PAYLOAD_TOO_LARGE")
        assert place.ask("/slow-to-stop").body == b"free"


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_an_echo_while_uploading(place: Place, coding: str | None) -> None:
    """What went in comes out before more goes in, compressed or not."""
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with place.line() as line:
        accept = {"Accept-Encoding": coding} if coding else {}
        line.ask("POST", f"/{place.runtime}/echo", {"Transfer-Encoding": "chunked", **accept})
        line.send_chunk(b"0")
        reply = line.head()
        assert (reply.status, reply["content-encoding"]) == (200, coding)
        for number in range(5):
            chunk = line.chunk()
            assert (unzip.decompress(chunk) if coding else chunk) == str(number).encode()
            line.send_chunk(str(number + 1).encode())
        line.send(b"0\r\n\r\n")
        assert line.rest(reply).whole


def test_an_answer_before_the_body_has_arrived(place: Place) -> None:
    with place.line() as line:
        line.ask("POST", f"/{place.runtime}/early", {"Content-Length": "1000000"})
        reply = line.reply()
    assert (reply.status, reply.body, reply["connection"]) == (200, b"an answer", "close")


@pytest.mark.parametrize(
    ("path", "length", "first", "then"),
    [
        ("/upload", 3, 100, 200),
        ("/upload", 0, 200, None),
        ("/upload", 4_500_001, 413, None),
        ("/limited", 1001, 413, None),
        ("/nowhere", 3, 404, None),
        ("/get-only", 3, 405, None),
    ],
)
def test_expect_100_continue(place: Place, path: str, length: int, first: int, then: int | None) -> None:
    """A client that waits is told to send exactly where its body is wanted."""
    with place.line() as line:
        line.ask("POST", f"/{place.runtime}{path}", {"Content-Length": str(length), "Expect": "100-continue"})
        reply = line.head()
        assert reply.status == first
        if then is not None:
            line.send(b"x" * length)
            assert line.reply().status == then


def test_another_expectation(place: Place) -> None:
    reply = place.ask("/early", "POST", b"", {"Expect": "tea"})
    assert (reply.status, reply.error) == (417, "EXPECTATION_FAILED")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_breaks_off(place: Place, framing: str) -> None:
    """A client that stops in the middle has left: nobody takes the part for the whole."""
    fields = {"Content-Length": "10"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    began = time.monotonic()
    with place.line() as line:
        line.ask("POST", f"/{place.runtime}/echo", fields)
        line.send(b"xxx" if framing == "length" else b"3\r\nxxx\r\n")
        reply = line.head()
        assert line.chunk() == b"xxx"
        line.sock.shutdown(1)
        assert not line.rest(reply).whole
    assert time.monotonic() - began < 40

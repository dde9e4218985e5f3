"""Forms: urlencoded and multipart, files kept exactly, large ones on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lampyr import Request, UploadedFile
from lampyr.errors import BadRequest
from lampyr.runtime import wire
from lampyr.runtime.forms import SPOOL_BYTES, read
from lampyr.runtime.request import Body

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=XX"


def part(disposition: str, content: bytes, *more: str) -> bytes:
    head = [f"Content-Disposition: form-data; {disposition}", *more]
    return b"--XX\r\n" + "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n"


def parse(content_type: str, body: bytes) -> list[tuple[str, Any]]:
    """What `request.form()` gives, files as (filename, content type, content)."""
    coroutine = read(content_type, Body(body))
    try:
        coroutine.send(None)
    except StopIteration as stop:
        form = stop.value
    pairs = [
        (name, (value.filename, value.content_type, bytes(value.read())) if isinstance(value, UploadedFile) else value)
        for name, value in form.items()
    ]
    form.close()
    return pairs


END = b"--XX--\r\n"
READ: list[tuple[str, bytes, list[tuple[str, Any]]]] = [
    (URLENCODED, b"", []),
    (URLENCODED, b"a=1&a=2&b=%C3%A9+x&c", [("a", "1"), ("a", "2"), ("b", "é x"), ("c", "")]),
    (URLENCODED.upper() + "; charset=utf-8", b"a=1", [("a", "1")]),
    (MULTIPART, END, []),
    (MULTIPART, part('name="a"', b"1") + part('name="a"', b"2") + END, [("a", "1"), ("a", "2")]),
    (MULTIPART, part('name="a"', b"") + END, [("a", "")]),
    (MULTIPART, part('name="a"', b"x\r\ny\r\n") + END, [("a", "x\r\ny\r\n")]),
    (MULTIPART, part('name="a"', "é".encode() + b"\xff") + END, [("a", "é\ufffd")]),
    (MULTIPART, part('name="a"', b"--XX\r") + END, [("a", "--XX\r")]),
    (MULTIPART, part('name="f"; filename="a.bin"', b"\x00\r\n--X\xff", "Content-Type: image/png") + END,
     [("f", ("a.bin", "image/png", b"\x00\r\n--X\xff"))]),
    (MULTIPART, part('name="f"; filename="a"', b"") + END, [("f", ("a", "text/plain", b""))]),
    (MULTIPART, part('name="f"; filename=""', b"", "Content-Type: application/octet-stream") + END,
     [("f", ("", "application/octet-stream", b""))]),
    (MULTIPART, part('name="f"; filename="é %22q%22 %0D%0A.txt"', b"x") + END,
     [("f", ('é "q" \r\n.txt', "text/plain", b"x"))]),
    (MULTIPART, part('name="a%22b"', b"x") + END, [('a"b', "x")]),
    (MULTIPART, part('name="../../x"; filename="../../etc/passwd"', b"x") + END,
     [("../../x", ("../../etc/passwd", "text/plain", b"x"))]),
    ('multipart/form-data; boundary="XX"', part('name="a"', b"1") + END, [("a", "1")]),
    (MULTIPART, part('name="a"', b"1", "Content-Type: application/json", "X-Other: y") + END, [("a", "1")]),
]  # fmt: skip


@pytest.mark.parametrize(("content_type", "body", "pairs"), READ)
def test_read(content_type: str, body: bytes, pairs: list[tuple[str, Any]]) -> None:
    assert parse(content_type, body) == pairs


REFUSED: list[tuple[str, bytes]] = [
    ("", b"a=1"),
    ("text/plain", b"a=1"),
    ("application/json", b"{}"),
    ("multipart/form-data", part('name="a"', b"1") + END),
    ("multipart/form-data; boundary=", part('name="a"', b"1") + END),
    ("multipart/mixed; boundary=XX", part('name="a"', b"1") + END),
    (MULTIPART, b""),
    (MULTIPART, part('name="a"', b"1")),
    (MULTIPART, part('name="a"', b"1")[:-3]),
    (MULTIPART, b"--YY\r\n" + END),
    (MULTIPART, b"nonsense"),
    (MULTIPART, part('filename="x"', b"1") + END),
    (MULTIPART, b"--XX\r\n\r\n1\r\n" + END),
    (MULTIPART, part('name="a"', b"1", "X: " + "y" * 100_000) + END),
    (MULTIPART, part('name="a"', b"1", *["X: y"] * 1000) + END),
    (MULTIPART, part('name="a"', b"1") * 10_001 + END),
]


@pytest.mark.parametrize(("content_type", "body"), REFUSED, ids=range(len(REFUSED)))
def test_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(content_type, body)


@given(st.lists(st.binary(), max_size=5), st.binary(max_size=50))
def test_bytes_are_kept_exactly(contents: list[bytes], pad: bytes) -> None:
    contents = [content for content in contents if b"--XX" not in content]
    body = b"".join(part('name="f"; filename="x"', content) for content in contents) + END
    assert [value[2] for _, value in parse(MULTIPART, body)] == contents


async def digest(request: Request) -> Any:
    form = await request.form()
    file = form["file"]
    assert isinstance(file, UploadedFile)
    whole = hashlib.sha256()
    while data := await file.read(65536):
        whole.update(data)
    file.seek(0)
    return {"sha": whole.hexdigest(), "size": file.size, "name": file.filename, "kind": file.content_type,
            "text": form.get("text"), "on_disk": vars(file.file)["_rolled"]}  # fmt: skip


@pytest.mark.parametrize("size", [10, SPOOL_BYTES + 1])
def test_large_files_wait_on_disk(serve: Callable[..., Any], tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    body = part('name="text"', b"t") + part('name="file"; filename="big"', content, "Content-Type: a/b") + END
    gateway = serve(POST=digest)
    stream = gateway.send("POST", "/", {"content-type": MULTIPART}, body[:7], whole=False)
    for at in range(7, len(body), 100_000):
        gateway.frame(stream, wire.BODY, body[at : at + 100_000])
    gateway.frame(stream, wire.BODY_END)
    assert gateway.answer(stream).json() == {
        "sha": hashlib.sha256(content).hexdigest(), "size": size, "name": "big", "kind": "a/b", "text": "t",
        "on_disk": size > SPOOL_BYTES,
    }  # fmt: skip


def test_a_sync_handler_reads_a_file_without_await(serve: Callable[..., Any]) -> None:
    import asyncio

    def handler(request: Request) -> Any:
        form = asyncio.run(request.form())
        file = form["f"]
        assert isinstance(file, UploadedFile)
        return {"data": file.read().decode(), "text": file.text()}

    body = part('name="f"; filename="x"', b"\xef\xbb\xbfhi") + END
    answer = serve(POST=handler).call("POST", "/", {"content-type": MULTIPART}, body)
    assert answer.json() == {"data": "\ufeffhi", "text": "hi"}


def test_files_are_open_in_after_and_closed_afterwards(serve: Callable[..., Any]) -> None:
    from lampyr import after

    kept: list[UploadedFile] = []

    async def handler(request: Request) -> str:
        if kept:
            return str(kept[0].file.closed)
        file = (await request.form())["f"]
        assert isinstance(file, UploadedFile)
        kept.append(file)
        after(lambda: print("after", file.read(), flush=True))
        return "x"

    gateway = serve(POST=handler)
    body = part('name="f"; filename="x"', b"hi") + END
    gateway.call("POST", "/", {"content-type": MULTIPART}, body)
    assert "after b'hi'" in gateway.log and gateway.call("POST").text == "True"


def test_a_form_without_content_type(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> Any:
        return {"n": len(await request.form())}

    kind, text = serve(POST=handler).call("POST", body=b"a=1").failure
    assert kind == "bad_request" and "Content-Type" in text


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_bad_request(body: bytes) -> None:
    try:
        parse(MULTIPART, body)
    except BadRequest:
        pass

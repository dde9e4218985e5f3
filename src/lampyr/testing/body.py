"""What a request of a test is made of: the query, and the body with the header fields that go with it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

Query = Mapping[str, Any] | Iterable[tuple[str, Any]]
File = bytes | tuple[str, bytes] | tuple[str, bytes, str]


def pairs_of(query: Query) -> Iterable[tuple[str, Any]]:
    """The pairs of a mapping, or the pairs themselves."""
    return query.items() if isinstance(query, Mapping) else query


def body_of(options: dict[str, Any]) -> tuple[bytes | Iterable[bytes], list[bytes]]:
    """The body that `json`, `data` and `files` describe, and the header fields that go with it."""
    value, data, files = options.pop("json", None), options.pop("data", None), options.pop("files", None)
    if value is not None and (data is not None or files is not None):
        raise TypeError("a request has one body: json, or data and files")
    if value is not None:
        body = json.dumps(value, ensure_ascii=False).encode()
        return body, [b"content-type", b"application/json", b"content-length", b"%d" % len(body)]
    if files is not None:
        boundary = uuid.uuid4().hex
        body = _multipart(boundary, data or {}, files)
        kind = f"multipart/form-data; boundary={boundary}".encode()
        return body, [b"content-type", kind, b"content-length", b"%d" % len(body)]
    if data is None:
        return b"", []
    if isinstance(data, Mapping):
        body = urlencode(list(data.items()), doseq=True).encode()
        return body, [b"content-type", b"application/x-www-form-urlencoded", b"content-length", b"%d" % len(body)]
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, bytes):
        return data, [b"content-length", b"%d" % len(data)]
    return data, []


def _multipart(boundary: str, data: Mapping[str, Any], files: Mapping[str, File]) -> bytes:
    parts: list[bytes] = []
    for name, value in data.items():
        texts = value if isinstance(value, (list, tuple)) else (value,)
        parts += [_part(boundary, f'name="{_escaped(name)}"', None, str(text).encode()) for text in texts]
    for name, file in files.items():
        filename, content, *kind = (name, file) if isinstance(file, bytes) else file
        where = f'name="{_escaped(name)}"; filename="{_escaped(str(filename))}"'
        parts.append(_part(boundary, where, str(kind[0]) if kind else "application/octet-stream", bytes(content)))
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def _part(boundary: str, where: str, kind: str | None, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {where}\r\n"
    if kind is not None:
        head += f"Content-Type: {kind}\r\n"
    return head.encode() + b"\r\n" + content + b"\r\n"


def _escaped(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

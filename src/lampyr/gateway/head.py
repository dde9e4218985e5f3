"""Strict reading of a request's head: what could mean two things is refused (RFC 9112, RFC 9110).

One reader of our own instead of a check in front of another parser: two parsers that read the same bytes can disagree,
and smuggled requests live in that gap. (Measured: this reader takes as long as a check of the same strictness followed
by httptools; a test compares what is accepted with h11.) Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from lampyr.core import traceparent

METHODS = {name.encode(): name for name in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")}
MAX_LINE_BYTES = 8192
MAX_HEADERS = 100
MAX_SHOWN_BYTES = 200  # of the path of a refused request
MAX_HEADERS_BYTES = 32 * 1024  # names, colons, values and line ends

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 5.6.2
_LINE = rb"(" + TOKEN + rb") ([!\"$-~]++) HTTP/1\.([01])"
# No folding, no space before the colon, no control character but the tab: every field is one line and has one meaning.
_FIELD = rb"(?:\r\n" + TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+)*+"
# The whole of a head in one look (1.2 µs); what follows can then trust the shape of every line.
_HEAD = re.compile(_LINE + rb"(" + _FIELD + rb")")
_FIELDS = re.compile(_FIELD)
_METHOD = re.compile(TOKEN)
# In a line that is not complete yet; a CR may still get its LF.
_STRAY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_UNPRINTABLE = re.compile(rb"[^!-~]")
_NAME_AND_PORT = re.compile(rb"([0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)

# Headers that decide where a request ends and whom it is for: said once, or not at all.
_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
# Spelled so that some other reader on the way may take them for the real ones.
_LOOKALIKES = frozenset((b"content_length", b"transfer_encoding"))
_NOTED = _ONCE | _LOOKALIKES | {b"connection", b"upgrade", b"cookie", b"traceparent"}

# The console's cookie begins like this. Cookies know no ports, so a browser sends it here as well; it is no function's.
CONSOLE_COOKIE = "lampyr-console-"
_CONSOLE_COOKIE = CONSOLE_COOKIE.encode()


class Refusal(Exception):
    """The request cannot be read: `code` of SPEC 3, and a sentence that holds nothing of the request."""

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Head(NamedTuple):
    """A request's head. `target` is in origin form or "*"; `length` is None where the body is chunked.

    `fields` are the headers once more, joined as an instance is sent them (runtime/wire.py).
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    host: str
    http_1_0: bool
    keep_alive: bool
    length: int | None
    expects_continue: bool
    fields: bytes
    upgrade: bytes


def glimpse(data: bytes) -> tuple[str, str]:
    """Method and path of a request that is refused, for the log: printable, and "-" for what cannot be read."""
    words = data[:MAX_LINE_BYTES].partition(b"\r\n")[0].split(b" ")
    method = METHODS.get(words[0], "-")
    target = words[1].partition(b"?")[0] if len(words) > 1 else b""
    if target[:1] != b"/":
        return method, "-"
    path = _UNPRINTABLE.sub(lambda found: b"\\x%02x" % ord(found[0]), target[:MAX_SHOWN_BYTES])
    return method, path.decode() + ("..." if len(target) > MAX_SHOWN_BYTES else "")


def bad(message: str) -> Refusal:
    """A request that is not HTTP/1.1 as RFC 9112 has it, or not unambiguously so."""
    return Refusal("BAD_REQUEST", message)


def check_begun(data: bytes, seen: int) -> None:
    """Look at a head that is not complete yet, of which `seen` bytes were looked at before.

    Raises Refusal where it is already wrong or too long. Lines are looked at once, so a client that sends bytes one by
    one costs no more than another.
    """
    end = data.find(b"\r\n")
    if (end if end >= 0 else len(data) - 1) > MAX_LINE_BYTES:
        raise Refusal("URL_TOO_LONG")
    if end >= 0 and len(data) - end > MAX_HEADERS_BYTES + 3:
        raise Refusal("REQUEST_HEADER_TOO_LARGE")
    if not _METHOD.match(data):
        raise _malformed(data)
    last = data.rfind(b"\r\n")
    known = data.rfind(b"\r\n", 0, seen)
    if last > known:
        shape = _FIELDS.fullmatch(data, known, last) if known >= 0 else _HEAD.fullmatch(data, 0, last)
        if shape is None:
            raise _malformed(data)
    if _STRAY.search(data, max(seen - 1, last, 0)):
        raise _malformed(data)


def read(data: bytes, end: int) -> Head:
    """Read the head that stands in `data` before `end`, where its empty line begins. Raises Refusal."""
    shape = _HEAD.fullmatch(data, 0, end)
    if shape is None:
        raise _unfit(data[:end])
    written, target, minor, fields = shape.groups()
    lines = fields.split(b"\r\n")
    if len(lines) > MAX_HEADERS + 1 or len(fields) > MAX_HEADERS_BYTES or end - len(fields) > MAX_LINE_BYTES:
        raise _unfit(data[:end])
    method = METHODS.get(written)
    if method is None:
        raise bad("The method is not one of " + ", ".join(METHODS.values()) + ".")
    headers = []
    noted: dict[bytes, bytes] = {}
    del lines[0]
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip()
        headers.append((name, value))
        if name in _NOTED:
            _note(noted, name, value)
    if _CONSOLE_COOKIE in noted.get(b"cookie", b""):
        headers = _without_console_cookie(headers)
    if b"traceparent" in noted and traceparent.parse(noted[b"traceparent"].decode("latin-1")) is None:
        # W3C Trace Context 3.2.2.5 and 3.3: what cannot be read is passed on to nobody, and neither is its state.
        headers = [header for header in headers if header[0] not in (b"traceparent", b"tracestate")]
    http_1_0 = minor == b"0"
    host, target = _whom(noted.get(b"host"), target, http_1_0, headers)
    length = _length(noted, http_1_0) if noted else 0
    if target == "*" and method != "OPTIONS":
        raise bad("The request target is malformed.")
    connection, expect = noted.get(b"connection"), noted.get(b"expect")
    keep_alive = not http_1_0 if connection is None else _persists(connection, http_1_0)
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal("EXPECTATION_FAILED")
    # RFC 9110 10.1.1: an expectation of 100-continue in HTTP/1.0 is ignored.
    expects_continue = expect is not None and not http_1_0
    told = b"\0".join([part for header in headers for part in header])
    upgrade = noted.get(b"upgrade", b"")
    return Head(method, target, headers, host, http_1_0, keep_alive, length, expects_continue, told, upgrade)


def _note(noted: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name in _LOOKALIKES:
        raise bad(f"The header {name.decode()} is too easily taken for another.")
    if name in noted:
        if name in _ONCE:
            raise bad(f"The header {name.decode()} stands there twice.")
        value = noted[name] + b"," + value
    noted[name] = value


def _without_console_cookie(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in headers:
        if name == b"cookie" and _CONSOLE_COOKIE in value:
            others = [one for one in value.split(b";") if not one.strip().startswith(_CONSOLE_COOKIE)]
            if not others:
                continue
            value = b";".join(others).strip()
        kept.append((name, value))
    return kept


def _whom(host: bytes | None, target: bytes, http_1_0: bool, headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """The host a request is for and its target in origin form (RFC 9112 3.2)."""
    if host is None:
        if not http_1_0:
            raise bad("HTTP/1.1 needs a Host header.")
        name = ""
    else:
        name = _host(host)
    if target[:1] == b"/" or target == b"*":
        return name, target.decode()
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise bad("The request target is malformed.")
    authority, rest = absolute.groups()
    # RFC 9112 3.2.2: the authority wins over Host, also for whoever reads the headers later.
    headers[:] = [(b"host", authority), *(header for header in headers if header[0] != b"host")]
    return _host(authority), (rest if rest[:1] == b"/" else b"/" + rest).decode()


@lru_cache(256)
def _host(written: bytes) -> str:
    """A host with or without a port. An http URL without a host is invalid (RFC 9110 4.2.1)."""
    parts = _NAME_AND_PORT.fullmatch(written)
    if parts is None or int(parts[2] or 0) > 65535:
        raise bad("The Host header is malformed.")
    if parts[1][:1] == b"[":
        try:
            IPv6Address(parts[1][1:-1].decode())
        except AddressValueError:
            raise bad("The Host header is malformed.") from None
    return written.decode()


def names_a_host(written: bytes) -> bool:
    """Whether it could stand in a Host header."""
    try:
        _host(written)
    except Refusal:
        return False
    return True


def _length(noted: dict[bytes, bytes], http_1_0: bool) -> int | None:
    """The announced length of the body, None for chunked (RFC 9112 6)."""
    encoding = noted.get(b"transfer-encoding")
    length = noted.get(b"content-length")
    if encoding is not None:
        if length is not None:
            raise bad("Content-Length and Transfer-Encoding stand there together.")
        if http_1_0 or encoding.lower() != b"chunked":
            raise bad("The only transfer encoding is chunked, in HTTP/1.1.")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 18:
        raise bad("Content-Length is not a number.")
    return int(length)


def _persists(connection: bytes, http_1_0: bool) -> bool:
    """Whether the client wants to go on after this request (RFC 9112 9.3)."""
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"close" not in options and (not http_1_0 or b"keep-alive" in options)


def _unfit(data: bytes) -> Refusal:
    """Why a complete head is refused that is malformed or too long."""
    line, _, fields = data.partition(b"\r\n")
    if len(line) > MAX_LINE_BYTES:
        return Refusal("URL_TOO_LONG")
    if len(fields) + 2 > MAX_HEADERS_BYTES or fields.count(b"\r\n") >= MAX_HEADERS:
        return Refusal("REQUEST_HEADER_TOO_LARGE")
    return _malformed(data)


def _malformed(data: bytes) -> Refusal:
    if data[:2] == b"\x16\x03":
        return bad("This is TLS, and this port speaks plain HTTP.")
    if data[:14] == b"PRI * HTTP/2.0":
        return bad("This is HTTP/2, and this port speaks HTTP/1.1.")
    line = data.partition(b"\r\n")[0]
    if not line.isascii():
        return bad("The request target holds bytes that are not ASCII: percent-encode them (é is %C3%A9).")
    if line.count(b" ") > 2 and line.rpartition(b" ")[2].startswith(b"HTTP/"):
        return bad("The request target holds a space: percent-encode it (%20).")
    return bad("The request line or a header is malformed.")

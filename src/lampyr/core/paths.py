"""The path of a request, normalised once: escapes checked, dot segments resolved, the one clean spelling found."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

# Most paths are clean as they come, and one match says so: no escapes, no empty or dot segments, no slash at the end.
_ORDINARY = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)+")
_FORBIDDEN = re.compile(r"[^!-\"$-~\x80-\xff]")
_UNSAFE = re.compile(r"[^!-\"$-~]")
_RAW_BYTE = re.compile(r"[\x80-\xff]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_UNRESERVED = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")


class Clean(NamedTuple):
    """What a target names, in the one spelling everything behind the gateway sees.

    `path` is percent-encoded and begins with one slash; `segments` are decoded, none is empty. `written` are the
    segments as the client wrote them with only the dot segments resolved (empty ones kept), `tidy` whether the client
    used the clean spelling, give or take escapes and dots.
    """

    path: str
    segments: tuple[str, ...]
    written: tuple[str, ...]
    tidy: bool
    backslash: bool


def clean(path: str) -> Clean | str:
    """Normalise `path` (latin-1, as it stands in the request line, without the query); a str says why it is refused.

    Order of the steps: `\\` counts as `/` and dot segments are resolved as in the WHATWG URL standard (an empty segment
    is a segment there), so a browser and curl, which resolve before they send, mean the same path as a client that does
    not; only then are empty segments dropped.
    """
    if _ORDINARY.fullmatch(path):
        segments = tuple(path[1:].split("/"))
        return Clean(path, segments, segments, True, False)
    if not path.startswith("/") and not path.startswith("\\"):
        return "The request target must be a path that begins with a slash."
    if _FORBIDDEN.search(path):
        return "The path holds a character that must be percent-encoded."
    path = _RAW_BYTE.sub(_escape, path)
    if _BAD_ESCAPE.search(path):
        return "The path holds an invalid escape."
    backslash = "\\" in path
    written = path[1:].split("/") if not backslash else path.replace("\\", "/")[1:].split("/")
    if "%" not in path and "/." not in path and not backslash:
        spelled = written
    else:
        written, spelled = _resolve(written)
    kept = [segment for segment in spelled if segment]
    try:
        segments = tuple([unquote(segment, errors="strict") for segment in kept])
    except UnicodeDecodeError:
        return "The path is not UTF-8."
    tidy = not backslash and (len(kept) == len(spelled) or spelled == [""])
    return Clean("/" + "/".join(kept), segments, tuple(written), tidy, backslash)


def _resolve(segments: list[str]) -> tuple[list[str], list[str]]:
    """Take dot segments out, plain and encoded: the segments as written, and with unreserved characters decoded."""
    written: list[str] = []
    spelled: list[str] = []
    name = ""
    for segment in segments:
        name = _UNRESERVED.sub(_unescape, segment) if "%" in segment else segment
        if name == "..":
            del written[-1:], spelled[-1:]
        elif name != ".":
            written.append(segment)
            spelled.append(name)
    if name in (".", ".."):
        written.append("")
        spelled.append("")
    return written, spelled


def escape_unsafe(query: str) -> str:
    """Percent-encode what must not stand in a Location header; leave every other character as it is."""
    return _UNSAFE.sub(_escape, query)


def _escape(found: re.Match[str]) -> str:
    encoding = "latin-1" if found[0] <= "\xff" else "utf-8"
    return "".join([f"%{byte:02X}" for byte in found[0].encode(encoding, "surrogatepass")])


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))

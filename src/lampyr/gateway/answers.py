"""The platform's own answers: errors in one JSON shape (SPEC 3), and the redirect to a clean path."""

from __future__ import annotations

import json

from lampyr.core.codes import CODES

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]

# An encoder of its own each time costs as much as what it writes.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def error(code: str, message: str | None, id: str, *headers: tuple[bytes, bytes], **more: object) -> Answer:
    """`{"error": {"code", "message", "id", ...}}` with `x-lampyr-error`; `message` None takes the code's own sentence.

    The id and timing headers are the caller's: an error of a function has timings, an error of the front door has none.
    """
    text = _encode({"error": described(code, message, id, more)}).encode()
    return (
        CODES[code].status,
        [(b"content-type", b"application/json"), (b"x-lampyr-error", code.encode()), *headers],
        text,
    )


def described(code: str, message: str | None, id: str, more: dict[str, object]) -> dict[str, object]:
    """What clients are told of an error, whatever it travels in."""
    return {"code": code, "message": message or CODES[code].message, "id": id, **more}


def moved(location: str) -> Answer:
    """308 to the clean path; the method and the body stay (RFC 9110 15.4.9)."""
    return 308, [(b"location", location.encode("latin-1"))], b""

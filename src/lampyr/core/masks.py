"""How a secret may be written down: every encoding that masking looks for (SPEC 4)."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Iterator
from html.entities import codepoint2name
from urllib.parse import quote, quote_plus

# Shorter values are not masked: "true" or "3000" are part of ordinary text, and masking them would garble it.
MIN_CHARS = 6
# Of a secret with several lines each line counts from here on (SPEC 4).
MIN_LINE_CHARS = 8
# Longer values are masked in pieces, which bounds what a stream may hold back (encodings are up to 6 times as long).
PIECE_CHARS = 2048
# What is longer is a file, not a key: only so much of it is looked for. Each character costs a masker up to 3 KB and
# 30 µs to make.
MAX_CHARS = 8192

_LINE_END = re.compile(r"\r\n|\r|\n|\\r\\n|\\n")  # a key in one line of a .env file is often written with \n


def parts(secret: str) -> list[str]:
    """What of `secret` has to be masked: all of it, in pieces where it is long, and each of its longer lines.

    Empty for a value that is too short to mask; of one that is too long, what its first MAX_CHARS hold.
    """
    if len(secret) < MIN_CHARS:
        return []
    secret = secret[:MAX_CHARS]
    pieces = [secret[at : at + PIECE_CHARS] for at in range(0, len(secret), PIECE_CHARS)]
    if len(pieces) > 1 and len(pieces[-1]) < MIN_LINE_CHARS:
        pieces[-1] = secret[-PIECE_CHARS:]
    lines = [line.strip() for line in _LINE_END.split(secret)]
    if len(lines) > 1:
        pieces += [line[:PIECE_CHARS] for line in lines if len(line) >= MIN_LINE_CHARS]
    return list(dict.fromkeys(pieces))


def encodings(secret: str) -> set[bytes]:
    """Every way in which `secret`, or one of its longer lines, is looked for. Empty for a value that is too short."""
    return {written for part in parts(secret) for encode in ENCODERS.values() for written in encode(part)}


def base64_encodings(secret: str) -> set[bytes]:
    """Those of `encodings` that a line break may interrupt (MIME and PEM wrap base64 at 76 and 64 characters)."""
    names = ("base64", "base64 URL-safe")
    return {written for part in parts(secret) for name in names for written in ENCODERS[name](part)}


def _raw(secret: str) -> bytes:
    try:
        # A variable of the process environment that is not UTF-8 reaches Python with surrogates (PEP 383).
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _bytes(secret)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _aligned(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The base64 of `raw` inside longer data: what of it does not depend on the bytes around it.

    `raw` may begin at byte 0, 1 or 2 of a group of three: 0, 2 or 3 of the first characters hold bits of what comes
    before. If nothing follows, the last character (and the padding) are known too.
    """
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        text = encode(b"\0" * before + raw)
        yield text[shared : (before + len(raw)) * 8 // 6]
        yield text[shared:]
        yield text[shared:].rstrip(b"=")


def _base64(secret: str) -> Iterator[bytes]:
    return _aligned(_raw(secret), base64.b64encode)


def _base64_urlsafe(secret: str) -> Iterator[bytes]:
    return _aligned(_raw(secret), base64.urlsafe_b64encode)


def _base64_percent(secret: str) -> Iterator[bytes]:
    for text in _base64(secret):
        escaped = quote(text, safe="").encode()
        yield escaped
        yield _lower_escapes(escaped)


def _hex(secret: str) -> Iterator[bytes]:
    digits = _raw(secret).hex()
    yield digits.encode()
    yield digits.upper().encode()


def _utf16(secret: str) -> Iterator[bytes]:
    yield secret.encode("utf-16-le", "surrogatepass")
    yield secret.encode("utf-16-be", "surrogatepass")


def _lower_escapes(text: bytes) -> bytes:
    return re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), text)


# What percent-encoders leave as it is: Python's quote() in three ways, encodeURIComponent, encodeURI (ECMA-262 19.2.6).
_SAFE = ("", "/", "~", "!'()*", ";,/?:@&=+$-_.!~*'()#")


def _percent(secret: str) -> Iterator[bytes]:
    for safe in _SAFE:
        escaped = quote(_raw(secret), safe=safe).encode()
        yield escaped
        yield _lower_escapes(escaped)


def _percent_all(secret: str) -> Iterator[bytes]:
    for form in ("%%%02X", "%%%02x"):
        yield "".join([form % byte for byte in _raw(secret)]).encode()


def _percent_twice(secret: str) -> Iterator[bytes]:
    for once in {*_percent(secret), *_percent_all(secret)}:
        for safe in ("", "/"):
            escaped = quote(once, safe=safe).encode()
            yield escaped
            yield _lower_escapes(escaped)


def _form(secret: str) -> Iterator[bytes]:
    for safe in ("", "*"):
        escaped = quote_plus(_raw(secret), safe=safe).encode()
        yield escaped
        yield _lower_escapes(escaped)


def _json_text(text: str, *, ascii: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii)[1:-1]


def _json(secret: str) -> Iterator[bytes]:
    escaped = _json_text(secret, ascii=False)
    yield _bytes(escaped)
    yield _bytes(escaped.replace("/", "\\/"))


def _json_ascii(secret: str) -> Iterator[bytes]:
    escaped = _json_text(secret, ascii=True)
    yield escaped.encode()
    yield escaped.replace("/", "\\/").encode()
    # JSON for a place inside HTML (Jinja's tojson; Django's json_script and Go leave the quote as it is).
    for unsafe in (r"[<>&']", r"[<>&]"):
        for form in (escaped, _json_text(secret, ascii=False)):
            yield _bytes(re.sub(unsafe, lambda match: f"\\u{ord(match[0]):04x}", form))
            yield _bytes(re.sub(unsafe, lambda match: f"\\u{ord(match[0]):04X}", form))


def _json_twice(secret: str) -> Iterator[bytes]:
    for first in (True, False):
        for second in (True, False):
            yield _bytes(_json_text(_json_text(secret, ascii=first), ascii=second))


def _python_str(secret: str) -> Iterator[bytes]:
    for form in (repr, ascii):
        # Both quotes at the end make repr() choose single ones outside, and escape those inside.
        escaped = form(secret + "'\"")[1:-1].removesuffix("\\'\"")
        yield _bytes(escaped)
        yield _bytes(escaped.replace("\\'", "'"))


def _python_bytes(secret: str) -> Iterator[bytes]:
    escaped = repr(_raw(secret) + b"'\"")[2:-1].removesuffix("\\'\"")
    yield escaped.encode()
    yield escaped.replace("\\'", "'").encode()


def _escape_all(form: str) -> Callable[[str], Iterator[bytes]]:
    """Every character as an escape: `form` takes a code point, or a UTF-16 unit for \\u, or a byte for \\x."""

    def encode(secret: str) -> Iterator[bytes]:
        yield "".join([form % char for char in _units(secret, form)]).encode()

    return encode


def _units(secret: str, form: str) -> list[int]:
    if form.startswith("\\u"):
        raw = secret.encode("utf-16-be", "surrogatepass")
        return [raw[at] << 8 | raw[at + 1] for at in range(0, len(raw), 2)]
    if form.startswith("\\x"):
        return list(_raw(secret))
    return [ord(char) for char in secret]


def _shell(secret: str) -> Iterator[bytes]:
    quoted = shlex.quote(secret)
    yield _bytes(quoted)
    yield _bytes(secret.replace("'", "'\"'\"'"))
    yield _bytes(secret.replace("'", "'\\''"))
    yield _bytes(re.sub(r"([^\w@%+=:,./-])", r"\\\1", secret))  # bash: printf %q
    yield _bytes(re.sub(r'(["$`\\])', r"\\\1", secret))  # inside double quotes


# Letters beyond ASCII by their names, as PHP's htmlentities() writes them.
_NAMED = {code: f"&{name};" for code, name in codepoint2name.items() if code > 127}


def _html(secret: str) -> Iterator[bytes]:
    plain = html.escape(secret, quote=False)
    for double in ('"', "&quot;", "&#34;"):
        for single in ("'", "&#x27;", "&#39;", "&#039;", "&apos;"):
            text = plain.replace('"', double).replace("'", single)
            yield _bytes(text)
            yield text.encode("ascii", "xmlcharrefreplace")
            yield _bytes(text.translate(_NAMED))


def _ascii_only(secret: str) -> Iterator[bytes]:
    """What Python writes where the stream can hold nothing but ASCII."""
    for errors in ("backslashreplace", "xmlcharrefreplace"):
        yield secret.encode("ascii", errors)


ENCODERS: dict[str, Callable[[str], Iterator[bytes]]] = {
    "raw": lambda secret: iter((_raw(secret), _bytes(secret))),
    "UTF-16": _utf16,
    "base64": _base64,
    "base64 URL-safe": _base64_urlsafe,
    "base64 in a URL": _base64_percent,
    "hex": _hex,
    "percent": _percent,
    "percent, all bytes": _percent_all,
    "percent twice": _percent_twice,
    "form": _form,
    "JSON": _json,
    "JSON, ASCII": _json_ascii,
    "JSON twice": _json_twice,
    "Python str": _python_str,
    "Python bytes": _python_bytes,
    "ASCII": _ascii_only,
    "shell": _shell,
    "HTML named": _html,
    "HTML decimal": _escape_all("&#%d;"),
    "HTML hex": _escape_all("&#x%x;"),
    "HTML hex, upper": _escape_all("&#x%X;"),
    "HTML hex, upper X": _escape_all("&#X%X;"),
    "\\uXXXX": _escape_all("\\u%04x"),
    "\\uXXXX, upper": _escape_all("\\u%04X"),
    "\\xXX": _escape_all("\\x%02x"),
    "\\xXX, upper": _escape_all("\\x%02X"),
}

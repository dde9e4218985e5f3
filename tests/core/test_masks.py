"""Every way a secret is written down, against the encoders of the standard library and facts from the standards."""

from __future__ import annotations

import base64
import binascii
import html
import json
import random
import re
import shlex
import textwrap
from collections.abc import Callable
from html.entities import codepoint2name
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.core import masks

SECRETS = {
    "a provider key": "sk-proj-Abc123_def-456GHI789jklMNO",
    "every kind of quote and bracket": "p@ss w/ö\"rd'<&>\\$(x)`y`{z}",
    "only double quotes": 'say "hello" twice',
    "only single quotes": "it's o'clock",
    "base64 with + and /": "\u00fb\u00ff\u00fe?>~~~\u00fb\u00ff",
    "outside the BMP": "pa\U0001f511ss-wörd-€",
    "control characters": "tab\tand\x01bell\x07!",
}


def written_forms(secret: str) -> dict[str, bytes]:
    """How programs write a secret, made with other code than the product's wherever there is some."""
    raw = secret.encode()
    utf16 = secret.encode("utf-16-be")
    units = [utf16[at] << 8 | utf16[at + 1] for at in range(0, len(utf16), 2)]
    inner = json.dumps(secret)
    return {
        "raw": raw,
        "UTF-16LE": secret.encode("utf-16-le"),
        "base64": base64.b64encode(raw),
        "base64 without padding": base64.b64encode(raw).rstrip(b"="),
        "base64 URL-safe": base64.urlsafe_b64encode(raw),
        "base64 in a query": urlencode({"k": base64.b64encode(raw).decode()})[2:].encode(),
        "hex": binascii.hexlify(raw),
        "hex, upper": binascii.hexlify(raw).upper(),
        "percent": quote(secret).encode(),
        "percent, nothing safe": quote(secret, safe="").encode(),
        "percent, all bytes upper": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "percent, all bytes lower": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "percent twice, with Python's defaults": quote(quote(secret)).encode(),
        "percent twice": quote(quote(secret, safe=""), safe="").encode(),
        "form": quote_plus(secret).encode(),
        "JSON": json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        "JSON, ASCII": inner[1:-1].encode(),
        "JSON twice": json.dumps(inner)[3:-3].encode(),
        "JSON with escaped slashes": inner[1:-1].replace("/", "\\/").encode(),
        "JSON as Go and Django write it": re.sub("[<>&]", lambda m: f"\\u{ord(m[0]):04x}", inner[1:-1]).encode(),
        "ASCII by backslashes": raw.decode().encode("ascii", "backslashreplace"),
        "ASCII by references": raw.decode().encode("ascii", "xmlcharrefreplace"),
        "repr of str": repr(secret)[1:-1].encode(),
        "repr of str among others": repr([secret, "'", '"'])[2:].split(repr("'"))[0].rstrip(", ")[:-1].encode(),
        "ascii of str": ascii(secret)[1:-1].encode(),
        "repr of bytes": repr(raw)[2:-1].encode(),
        "shell": shlex.quote(secret).encode(),
        "HTML": html.escape(secret).encode(),
        "HTML text": html.escape(secret, quote=False).encode(),
        "HTML, ASCII": html.escape(secret).encode("ascii", "xmlcharrefreplace"),
        "HTML, PHP": html.escape(secret).replace("&#x27;", "&#039;").encode(),
        "HTML, named letters": "".join(
            f"&{codepoint2name[ord(char)]};" if ord(char) in codepoint2name and char != '"' else char for char in secret
        ).encode(),
        "HTML hex, X": "".join(f"&#X{ord(char):X};" for char in secret).encode(),
        "HTML decimal": "".join(f"&#{ord(char)};" for char in secret).encode(),
        "HTML hex": "".join(f"&#x{ord(char):x};" for char in secret).encode(),
        "HTML hex, upper": "".join(f"&#x{ord(char):X};" for char in secret).encode(),
        "\\uXXXX": "".join(f"\\u{unit:04x}" for unit in units).encode(),
        "\\uXXXX, upper": "".join(f"\\u{unit:04X}" for unit in units).encode(),
        "\\xXX": "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    }


@pytest.mark.parametrize("name", written_forms("any secret"))
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_every_written_form_is_looked_for(secret: str, name: str) -> None:
    assert written_forms(secret)[name] in masks.encodings(secret)


def test_there_are_at_least_twenty_encodings() -> None:
    assert len(masks.ENCODERS) >= 20
    assert len(masks.encodings(SECRETS["a provider key"])) >= 20


@pytest.mark.parametrize(
    ("before", "after"), [(b"\xff" * n, b"\xff" * m) for n in range(4) for m in range(4)], ids=lambda data: len(data)
)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_in_every_alignment(encode: Callable[[bytes], bytes], before: bytes, after: bytes) -> None:
    secret = SECRETS["base64 with + and /"]
    text = encode(before + secret.encode() + after)
    found = max((one for one in masks.base64_encodings(secret) if one in text), key=len)
    # What is left of the secret in the text is at most the bits that share a character with other bytes.
    assert len(found) >= len(secret.encode()) * 8 // 6 - 1


@given(st.text(min_size=masks.MIN_CHARS, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_of_any_secret_in_any_data(secret: str, before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + secret.encode("utf-8", "surrogatepass") + after)
    assert any(one in text for one in masks.base64_encodings(secret))


@given(st.text(max_size=60))
def test_no_encoding_is_shorter_than_a_secret_may_be(secret: str) -> None:
    assert all(len(written) >= masks.MIN_CHARS for written in masks.encodings(secret))


@pytest.mark.parametrize("value", ["", "1", "true", "3000", "debug"])
def test_values_that_are_too_short_are_not_looked_for(value: str) -> None:
    assert masks.encodings(value) == set()


class TestSeveralLines:
    KEY = (
        "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nshort\n  indented line of it \r\n12345678\n----END KEY----\n"
    )

    @pytest.mark.parametrize(
        ("line", "counts"),
        [
            ("MIIEvQIBADANBgkqhkiG9w0BAQ", True),
            ("indented line of it", True),
            ("12345678", True),
            ("short", False),
        ],
    )
    def test_each_line_of_8_or_more_characters(self, line: str, counts: bool) -> None:
        found = masks.encodings(self.KEY)
        assert (line.encode() in found) == counts
        assert (line.encode().hex().encode() in found) == counts

    def test_the_whole_of_it(self) -> None:
        assert self.KEY.encode() in masks.encodings(self.KEY)
        assert json.dumps(self.KEY)[1:-1].encode() in masks.encodings(self.KEY)

    def test_line_ends_written_as_backslash_n(self) -> None:
        assert b"MIIEvQIBADANBgkqhkiG9w0BAQ" in masks.encodings(self.KEY.replace("\n", "\\n"))


class TestLongValues:
    SECRET = "".join(random.Random(1).choices("abcdefghij", k=masks.MAX_CHARS))

    def test_no_pattern_is_longer_than_a_piece_may_get(self) -> None:
        # &#xXX; and \uXXXX take six bytes a character, a percent sign that is escaped twice nine.
        assert max(map(len, masks.encodings(self.SECRET))) <= 9 * masks.PIECE_CHARS

    def test_the_rest_of_a_longer_one_is_not_looked_for(self) -> None:
        assert masks.parts(self.SECRET + "the rest\nof it") == masks.parts(self.SECRET)

    def test_the_pieces_cover_all_of_it(self) -> None:
        covered = bytearray(len(self.SECRET))
        for piece in masks.parts(self.SECRET):
            at = self.SECRET.index(piece)
            covered[at : at + len(piece)] = b"\1" * len(piece)
        assert all(covered)


def test_a_variable_that_is_not_utf8_is_looked_for_as_its_bytes() -> None:
    assert b"secret-\xff\xfe" in masks.encodings("secret-\udcff\udcfe")


def test_wrapped_lines_are_those_of_the_plain_form() -> None:
    text = "\n".join(textwrap.wrap(base64.b64encode(b"x" + SECRETS["a provider key"].encode() * 3).decode(), 76))
    assert any(one in text.replace("\n", "").encode() for one in masks.base64_encodings(SECRETS["a provider key"]))

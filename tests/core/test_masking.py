"""Masking against an oracle of a few lines, whole and split over chunks at every place."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampyr.core import masks
from lampyr.core.masking import MASK, SHOWN_CHARS, Masker

SECRETS = [
    "sk-proj-Abc123_def-456GHI789jklMNO",
    "hunter2",
    "p@ss w/ö\"rd'<&>\\$",
    "aaaaaaaa",
    "first line\nsecond line\nx",
]
MASKER = Masker(SECRETS)
WRITTEN = sorted({written for secret in SECRETS for written in masks.encodings(secret)})

# Text that is full of beginnings of secrets, and of what wrapped base64 is made of.
ALPHABET = st.sampled_from(
    [b"a", b"hunter", b"2", b"sk-", b"proj-", b"first line", b"\n", b"\\n", b"\r\n", b" ", b"c2st", b"%73"]
)
NOISE = st.lists(ALPHABET, max_size=12).map(b"".join)
ANY_TEXT = st.one_of(st.binary(max_size=60), NOISE)


def masked(text: bytes) -> bytes:
    """The oracle: every occurrence of every written form, those that overlap as one. No wrapped base64."""
    spans = sorted((at, at + len(one)) for one in WRITTEN for at in range(len(text)) if text.startswith(one, at))
    out, at, covered = b"", 0, 0
    for start, end in spans:
        if start >= covered:
            out += text[at:start] + MASK
        at = covered = max(covered, end)
    return out + text[at:]


def streamed(pieces: Iterable[bytes]) -> list[bytes]:
    stream = MASKER.stream()
    return [*map(stream.feed, pieces), stream.end()]


def cut(text: bytes, places: Iterable[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(WRITTEN)), max_size=5).map(b"".join))
def test_whole_texts_equal_the_oracle(text: bytes) -> None:
    assert MASKER.mask(text) == masked(text)


@given(ANY_TEXT, st.sampled_from(WRITTEN), ANY_TEXT, st.lists(st.integers(0, 1000), max_size=6))
def test_no_written_form_leaves_a_stream(before: bytes, written: bytes, after: bytes, places: list[int]) -> None:
    out = b"".join(streamed(cut(before + written + after, places)))
    assert not any(one in out for one in WRITTEN)


@given(st.lists(st.one_of(NOISE, st.sampled_from(WRITTEN)), max_size=4).map(b"".join))
def test_byte_by_byte_a_stream_shows_the_first_two_of_a_secret_at_most(text: bytes) -> None:
    out = b"".join(streamed([text[at : at + 1] for at in range(len(text))]))
    # Taking away what was shown before each mask (or behind it, of a secret that overlaps) leaves the masked whole.
    whole = masked(text).split(MASK)
    parts = out.split(MASK)
    assert len(parts) == len(whole)
    for shown, kept in zip(parts, whole, strict=True):
        assert kept in shown and len(shown) - len(kept) <= 2 * SHOWN_CHARS


@pytest.mark.parametrize("written", WRITTEN, ids=range(len(WRITTEN)))
def test_cut_in_two_at_every_place(written: bytes) -> None:
    for at in range(len(written) + 1):
        out = b"".join(streamed([b"(" + written[:at], written[at:] + b")"]))
        shown = written[:at] if 0 < at <= SHOWN_CHARS else b""
        assert out == b"(" + shown + MASK + b")"


def begins_a_secret(text: bytes) -> bool:
    """Whether a secret may begin with `text`, which may be wrapped base64, and cut off inside a line break."""
    joined = text.replace(b"\\r", b"").replace(b"\\n", b"").replace(b"\r", b"").replace(b"\n", b"").rstrip(b"\\")
    return any(one.startswith((text, joined)) for one in WRITTEN)


@given(ANY_TEXT.filter(lambda text: masked(text) == text), st.lists(st.integers(0, 1000), max_size=6))
def test_text_without_secrets_passes_and_only_beginnings_wait(text: bytes, places: list[int]) -> None:
    stream = MASKER.stream()
    fed, out = b"", b""
    for piece in cut(text, places):
        fed += piece
        out += stream.feed(piece)
        assert fed.startswith(out)
        if out != fed:
            shown = range(SHOWN_CHARS + len(r"\r\n") + 1)
            assert any(begins_a_secret(fed[max(len(out) - back, 0) :]) for back in shown)
    assert out + stream.end() == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("/a/%63orrect-horse%2Dbattery/b%20c", "/a/***/b%20c"),
        ("/correct-horse-battery/%41", "/***/%41"),
        ("c=%22correct-horse-battery%22%25; Path=/", "c=%22***%22%25; Path=/"),
        ("%%63orrect%2dhorse%2dbattery%4", "%***%4"),
        ("a=" + quote(json.dumps('correct-horse-"battery"')), "a=%22***%22"),
        ("a=" + quote("".join(f"\\u{ord(c):04x}" for c in "correct-horse-battery")), "a=***"),
    ],
)
def test_a_secret_under_percent_escapes(text: str, masked: str) -> None:
    masker = Masker(["correct-horse-battery", 'correct-horse-"battery"'])
    assert masker.mask_escaped(text.encode()) == masked.encode()


def test_what_needs_no_masking_is_the_same_object() -> None:
    text = b"nothing to see " * 100
    assert MASKER.mask(text) is text


@pytest.mark.parametrize(
    "chunk", [b"a word", b"7", b"data: {}\n\n", b"line\n", b"sk", b"hu", b'{"text":"so:\\n\\n- one\\n"}']
)
def test_an_ordinary_chunk_is_never_late(chunk: bytes) -> None:
    stream = MASKER.stream()
    assert [stream.feed(chunk) for _ in range(3)] == [chunk] * 3
    assert stream.end() == b""


def test_a_beginning_waits_until_it_is_known_to_be_none() -> None:
    stream = MASKER.stream()
    assert stream.feed(b"password: hunte") == b"password: "
    assert stream.feed(b"r1") == b"hunter1"


def test_end_gives_out_what_was_held_back() -> None:
    stream = MASKER.stream()
    assert stream.feed(b"hunter") == b""
    assert stream.end() == b"hunter"
    assert stream.feed(b"2") + stream.end() == b"2", "an ended stream begins anew"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"hunter2", b"***"),
        (b"hunter2hunter2", b"******"),
        (b"aaaaaaaaaaaaaaaaaaaa", b"***"),
        (b'{"key":"hunter2"}', b'{"key":"***"}'),
        (b"?key=p%40ss%20w%2F%C3%B6%22rd%27%3C%26%3E%5C%24&x", b"?key=***&x"),
        (b"first line\nsecond line\nx", b"***"),
        (b"> second line", b"> ***"),
        (b"hunter", b"hunter"),
        (b"", b""),
    ],
)
def test_what_stands_in_the_place_of_secrets(text: bytes, expected: bytes) -> None:
    assert MASKER.mask(text) == expected


class TestWrappedBase64:
    """MIME wraps at 76, PEM at 64 (RFC 2045 6.8, RFC 7468 2); wherever the secret lies, the break may be inside it."""

    SECRET = SECRETS[0]

    def leaks(self, out: bytes) -> bool:
        """Whether a window of the secret's base64 that no other text could explain is left."""
        joined = out.replace(b"\\r", b"").replace(b"\\n", b"").replace(b"\r", b"").replace(b"\n", b"")
        cores = masks.base64_encodings(self.SECRET)
        return any(core[at : at + 6] in joined for core in cores for at in range(len(core) - 5))

    @pytest.mark.parametrize("width", [64, 76])
    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\\n", b"\\r\\n"])
    def test_at_every_offset_whole_and_split(self, width: int, line_end: bytes) -> None:
        masker = Masker([self.SECRET])
        source = random.Random(3)
        for offset in range(100):
            data = b"\xff" * offset + self.SECRET.encode() + b"\xff" * 50
            text = base64.b64encode(data)
            text = line_end.join(text[at : at + width] for at in range(0, len(text), width))
            assert not self.leaks(masker.mask(text)), offset
            stream = masker.stream()
            pieces = cut(text, [source.randrange(1000) for _ in range(4)])
            out = b"".join([*map(stream.feed, pieces), stream.end()])
            assert MASK in out
            assert not any(one in out.replace(line_end, b"") for one in masks.base64_encodings(self.SECRET))

    def test_encodebytes_inside_json(self) -> None:
        secret = self.SECRET * 3
        body = json.dumps({"key": base64.encodebytes(f"user:{secret}".encode()).decode()}).encode()
        out = json.loads(Masker([secret]).mask(body))["key"]
        assert base64.b64encode(secret.encode())[8:20].decode() not in out.replace("\n", "")
        assert "***" in out

    def test_line_breaks_of_other_text_stay(self) -> None:
        text = b"one\ntwo\r\nthree\\nfour\n\n" * 50
        assert MASKER.mask(text) == text
        stream = MASKER.stream()
        assert stream.feed(text) + stream.end() == text


class TestManySecrets:
    """Any secrets, not only those above: each is looked for with other strides and windows."""

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.text(min_size=masks.MIN_CHARS, max_size=50), min_size=1, max_size=4),
        st.binary(max_size=40),
        st.integers(0, 10**6),
        st.lists(st.integers(0, 10**6), max_size=3),
    )
    def test_every_encoding_of_random_secrets(
        self, secrets: list[str], around: bytes, pick: int, places: list[int]
    ) -> None:
        masker = Masker(secrets)
        written = sorted({one for secret in secrets for one in masks.encodings(secret)})
        text = around + written[pick % len(written)] + around
        stream = masker.stream()
        out = b"".join([*map(stream.feed, cut(text, places)), stream.end()])
        for one in written:
            assert one not in masker.mask(text)
            assert one not in out

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.text("nr\\\r\nab-0", min_size=masks.MIN_CHARS, max_size=30), min_size=1, max_size=4),
        st.lists(st.sampled_from([b"n", b"r", b"\\", b"\n", b"\r", b"ab", b"x"]), max_size=6).map(b"".join),
        st.integers(0, 10**6),
    )
    def test_secrets_of_line_breaks_and_what_escapes_them(self, secrets: list[str], around: bytes, pick: int) -> None:
        """The first look at a text is without its line breaks."""
        masker = Masker(secrets)
        written = sorted({one for secret in secrets for one in masks.encodings(secret)})
        text = around + written[pick % len(written)] + around
        assert not any(one in masker.mask(text) for one in written)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.text(min_size=masks.MIN_CHARS, max_size=60), min_size=1, max_size=4),
        st.integers(0, 90),
        st.sampled_from([64, 76]),
        st.sampled_from([b"\n", b"\r\n", b"\\n", b"\\r\\n"]),
    )
    def test_wrapped_base64_of_random_secrets(
        self, secrets: list[str], offset: int, width: int, line_end: bytes
    ) -> None:
        masker = Masker(secrets)
        text = base64.b64encode(b"\xff" * offset + secrets[0].encode() + b"\xff" * 50)
        text = line_end.join(text[at : at + width] for at in range(0, len(text), width))
        out = masker.mask(text).replace(line_end, b"")
        assert not any(one in out for one in masks.base64_encodings(secrets[0]))


@pytest.mark.parametrize("secrets", [[], ["", "abc", "12345"]], ids=["none", "too short"])
def test_without_secrets_a_masker_is_false_and_harmless(secrets: list[str]) -> None:
    masker = Masker(secrets)
    assert not masker
    assert masker.mask(b"abc 12345") == b"abc 12345"
    stream = masker.stream()
    assert stream.feed(b"abc") == b"abc" and stream.end() == b""


def test_a_private_key_is_held_back_until_it_is_known_to_be_another() -> None:
    lines = [base64.b64encode(random.Random(line).randbytes(48)).decode() for line in range(26)]
    key = "\n".join(["-----BEGIN KEY-----", *lines])
    stream = Masker([key]).stream()
    assert stream.feed(b"key: " + key[:-1].encode()) == b"key: "
    out = stream.feed(b"~") + stream.end()
    assert not any(line.encode() in out for line in lines)
    assert out.endswith(lines[-1][:-1].encode() + b"~")

"""Text of others in a terminal."""

from __future__ import annotations

import sys

import pytest

from lampyr.core.printable import printable

CORPUS = {
    "plain": "plain",
    "é 漢 👩\u200d🚒 \u00a0 a\u0301": "é 漢 👩\u200d🚒 \u00a0 a\u0301",
    "a\tb": "a\tb",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\": "\\x1b]8;;http://evil\\x1b\\link\\x1b]8;;\\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07": r"\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x1bP+q544e\x1b\\": "\\x1bP+q544e\\x1b\\",
    "\x9b31m\x9d0;t\x9c\x90": r"\x9b31m\x9d0;t\x9c\x90",  # C1
    "10%\r20%\b\b\x7f\x00": r"10%\x0d20%\x08\x08\x7f\x00",
    "\u202etxt.exe\u202c": r"\u202etxt.exe\u202c",
    "\u2066\u2067\u2068\u2069\u061c\u200e\u200f": r"\u2066\u2067\u2068\u2069\u061c\u200e\u200f",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "\ufeff\u200b\u00ad\ufff9": r"\ufeff\u200b\xad\ufff9",
    "\U000e0041\ue000\ud800\uffff": r"\U000e0041\ue000\ud800\uffff",
}


@pytest.mark.parametrize("text", CORPUS, ids=ascii)
def test_what_could_do_something_is_shown_as_an_escape(text: str) -> None:
    assert printable(text) == CORPUS[text]


def test_of_all_characters_there_are_only_printable_ones_pass() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(everything)
    passed = {one for one in shown if not one.isprintable()}
    assert {one for one in passed if ord(one) < 0x20} == {"\t"}
    assert all(one.isspace() or one in "\u200c\u200d" for one in passed)  # spaces of many widths
    assert not passed & set("\x85\u2028\u2029")

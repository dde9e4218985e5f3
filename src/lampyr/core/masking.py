"""Secrets in what functions write, replaced by `***` (SPEC 4), whole or split over the chunks of a stream.

Two questions are asked of every piece, both answered by an automaton in C: may there be a whole secret in it
(`_sieve`), and may a secret begin at its end (`_Beginnings`). Almost always the answer is no twice, and the piece
passes as the very object it was.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final
from urllib.parse import unquote_to_bytes

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from lampyr.core import masks

MASK: Final = b"***"
# So many characters of a secret are passed on at the end of a piece although the secret may follow. Every third letter
# is the first of some encoding of some secret: held back, it would delay the end of ordinary chunks. If the secret does
# follow, its remaining bytes are masked: whoever writes it byte by byte shows these two.
SHOWN_CHARS: Final = 2
# What is remembered of the bytes passed on, to recognise that secret: those characters, an escaped break among them.
REMEMBERED_BYTES: Final = SHOWN_CHARS + len(rb"\r\n")

Span = tuple[int, int]

# As numbers: `in` takes what it is given for a number first, and with bytes that costs 0.15 µs.
_NEWLINE: Final = ord(b"\n")
_BACKSLASH: Final = ord(b"\\")

# A table of states is four times as fast to walk as the compact form, and takes 512 bytes a state instead of 12.
_TABLE_STATES = 40_000

# One line break where base64 may be wrapped, also inside a JSON string, also cut off by the end of the piece.
_BREAK = re.compile(rb"(?<![\r\n])\r?\n(?![\r\n])|(?<!\\n)(?:\\r)?\\n(?!\\[rn])|\r\Z|\\(?:r\\?)?\Z")
_NARROWEST_LINE = 64
# One byte of what was escaped, as urllib.parse.unquote_to_bytes takes it.
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_WRAPPED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\r\n\\"


class Masker:
    """Masks `secrets` in every encoding that core.masks knows; false where there is nothing to mask.

    Never changes after it was made, and may be shared. Making one costs about 2 ms a secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        wanted = sorted(set(secrets))
        patterns = sorted({written for secret in wanted for written in masks.encodings(secret)})
        breakable = sorted({written for secret in wanted for written in masks.base64_encodings(secret)})
        self._any = bool(patterns)
        if not patterns:
            self._some, self._traces_in = _sieve([])
            return
        # In the first look there are no line breaks, neither in patterns nor in the text: so those that wrap base64
        # change nothing. Escaped ones cost too much to take out: texts with a backslash have the second look only.
        unbroken = [pattern.replace(b"\n", b"").replace(b"\r", b"") for pattern in patterns]
        self._some, self._traces_in = _sieve(_without_extensions(sorted(unbroken)))
        self._some_of_broken, self._traces_in_broken = _sieve(_windows(patterns, frozenset(breakable)))
        # These two are asked so seldom that a table is not worth its memory.
        self._whole = _automaton(patterns, table=False)
        self._broken = _automaton(breakable, table=False)
        self._beginnings = _Beginnings(patterns)
        self._broken_beginnings = _Beginnings(breakable)
        longest = max(map(len, patterns))
        self._reach = longest + 4 * (longest // _NARROWEST_LINE + 1)

    def __bool__(self) -> bool:
        return self._any

    def mask(self, data: bytes) -> bytes:
        """`data` with every secret replaced; the same object where there is none."""
        # As in spans(), without the 60 ns of a call: most bodies end here.
        if _BACKSLASH not in data and not self._traces_in(self._some(data.replace(b"\n", b"").replace(b"\r", b""))):
            return data
        return _covered(data, self.spans(data))

    def mask_escaped(self, text: bytes) -> bytes:
        """A header or a path, masked as it is and as it is without its percent-escapes."""
        text = self.mask(text)
        if b"%" not in text or not (spans := self.spans(unquote_to_bytes(text))):
            return text
        places = [found.start() for found in _PERCENT.finditer(text)] + [len(text)]
        return _covered(text, [(places[start], places[end]) for start, end in spans])

    def lines(self, lines: list[bytes]) -> list[bytes]:
        """As many lines without secrets, those too that go on from one line to the next: base64 is often written so."""
        spans = self.spans(b"\n".join(lines))
        if not spans:
            return lines
        masked, begin = [], 0
        for line in lines:
            end = begin + len(line)
            kept, at = [], begin
            for start, stop in spans:
                if start < end and stop > begin:
                    kept += [line[at - begin : max(start - begin, 0)], MASK]
                    at = min(stop, end)
            masked.append(b"".join([*kept, line[at - begin :]]) if kept else line)
            begin = end + 1
        return masked

    def stream(self) -> MaskStream:
        """For a body that comes in pieces."""
        return MaskStream(self)

    def spans(self, data: bytes) -> list[Span]:
        """Where secrets are, in order; those that overlap are one span."""
        if not self._any:
            return []
        if _BACKSLASH not in data and not self._traces_in(self._some(data.replace(b"\n", b"").replace(b"\r", b""))):
            return []
        # The first look is wrong about one of five bodies of 64 KiB of base64 that hold none of 50 short secrets.
        if not self._traces_in_broken(self._some_of_broken(data)):
            return []
        found = [(start, end) for _, start, end in self._whole.find_matches_as_indexes(data, overlapping=True)]
        if b"\n" in data or b"\\n" in data:
            joined = _Joined(data)
            for _, start, end in self._broken.find_matches_as_indexes(joined.text, overlapping=True):
                found.append((joined.before(start), joined.before(end - 1) + 1))
        return _merged(found)

    def opening(self, data: bytes) -> int:
        """Where the longest end of `data` starts that a secret may begin with; the length of `data` if none does.

        Ends of up to SHOWN_CHARS characters are not looked at.
        """
        end = data[-self._reach :]
        longest = self._beginnings.longest_at_end(end)
        # Every server-sent event ends in two line breaks.
        if (_NEWLINE in end or _BACKSLASH in end) and not end.endswith(b"\n\n"):
            longest = max(longest, self._longest_wrapped_at_end(end))
        return len(data) - longest

    def _longest_wrapped_at_end(self, end: bytes) -> int:
        wrapped = end[len(end.rstrip(_WRAPPED)) :]
        if b"\n" not in wrapped and b"\\" not in wrapped:
            return 0
        line = wrapped[:-1]
        if b"\n" not in line and b"\\" not in wrapped and b"\r" not in line:
            longest = self._broken_beginnings.longest_at_end(line)
            return longest + 1 if longest else 0
        joined = _Joined(wrapped)
        longest = self._broken_beginnings.longest_at_end(joined.text)
        return len(wrapped) - joined.before(len(joined.text) - longest) if longest else 0


class MaskStream:
    """One body on its way: what goes in may come out later, and only if a secret may begin with it.

    `_tail` is the end of what came in: bytes that may belong to a secret although they were passed on, then those that
    are held back. Of all these the first `_sent` have been answered, the first `_covered` of those by a mask.
    """

    __slots__ = ("_covered", "_masker", "_sent", "_tail")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._tail = b""
        self._sent = 0
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that `data` has come."""
        masker = self._masker
        if not masker:
            return data
        text = self._tail + data
        cut = masker.opening(text)
        out, sent = self._take(text, masker.spans(text), cut)
        keep = len(text) - REMEMBERED_BYTES
        if keep > cut:
            keep = cut
        if keep > 0:
            text = text[keep:]
            sent -= keep
            self._covered = self._covered - keep if self._covered > keep else 0
        self._tail = text
        self._sent = sent
        return out

    def end(self) -> bytes:
        """The rest: nothing follows, so what only looked like the beginning of a secret is none."""
        text = self._tail
        out, _ = self._take(text, self._masker.spans(text), len(text)) if text else (b"", 0)
        self._tail, self._sent, self._covered = b"", 0, 0
        return out

    def _take(self, text: bytes, spans: Sequence[Span], cut: int) -> tuple[bytes, int]:
        """What to pass on of `text` up to `cut`, and up to where that answers it: a secret may go on beyond `cut`."""
        at = self._sent
        out: list[bytes] = []
        for start, end in spans:
            if start >= cut:
                break
            if end <= at:
                continue
            if start >= self._covered:
                out += (text[at : max(at, start)], MASK)
            at = self._covered = end
        end = max(at, cut)  # compiled, a slice must not end before it begins
        out.append(text[at:end])
        return b"".join(out), end


# How many bytes of a trace are looked for, at least and at most, and how far apart they may be.
_FEWEST, _MOST, _LONGEST_STRIDE = 4, 6, 8


def _sieve(windows: Sequence[bytes]) -> tuple[Callable[[bytes], bytes], Callable[[bytes], object]]:
    """What picks the bytes of a text to look at, and what says of these whether it may hold one of `windows` (sorted).

    An automaton needs 2 ns a byte, so it is every `stride`-th. A window of n bytes leaves n // stride of them there, in
    one of `stride` ways; those ways are what is looked for. Four bytes in a row are seldom there by chance.
    """
    if not windows or not windows[0]:  # nothing is looked for; or line breaks are, which are everywhere
        return itemgetter(slice(0)), lambda _: bool(windows)
    stride = min(max(min(map(len, windows)) // _FEWEST, 1), _LONGEST_STRIDE)
    traces = {window[phase::stride][:_MOST] for window in windows for phase in range(stride)}
    every = itemgetter(slice(None, None, stride))
    return every, _automaton(_without_extensions(sorted(traces))).find_matches_as_indexes


def _windows(patterns: Sequence[bytes], breakable: frozenset[bytes]) -> list[bytes]:
    """What stays together of each pattern where base64 is wrapped; breaks are _NARROWEST_LINE apart or more."""
    windows = _without_extensions([pattern for pattern in patterns if pattern not in breakable])
    for pattern in _without_extensions(sorted(breakable)):
        if len(pattern) < _NARROWEST_LINE:
            windows += _longer_sides(pattern)
        else:
            half = _NARROWEST_LINE // 2
            windows += (pattern[:half], pattern[half : 2 * half])
    return windows


def _longer_sides(pattern: bytes) -> set[bytes]:
    """The longer side of each place where a break may be, with up to two bytes of the break, which widen the stride."""
    size = len(pattern) // 2 + 2
    sides = set()
    for at in range(1, len(pattern)):
        for line_break in (b"\n", b"\r\n", rb"\n", rb"\r\n"):
            broken = pattern[:at] + line_break + pattern[at:]
            sides.add(broken[:size] if 2 * at >= len(pattern) else broken[-size:])
    return sides


class _Beginnings:
    """Which ends of a text are the beginning, and not the whole, of one of `patterns` (sorted)."""

    KNOWN = 8  # bytes: longer ends are found by the automaton, shorter ones are looked up

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._patterns = patterns
        self._bytes = frozenset(byte for pattern in patterns for byte in pattern[:-1])
        sizes = range(SHOWN_CHARS + 1, self.KNOWN)
        self._short = {pattern[:size] for pattern in patterns for size in sizes if size < len(pattern)}
        self._automaton = _automaton(sorted({pattern[: self.KNOWN] for pattern in patterns}))

    def longest_at_end(self, text: bytes) -> int:
        """The length of the longest such end of more than SHOWN_CHARS; 0 where there is none."""
        if not text or text[-1] not in self._bytes:  # most events, lines and sentences end in such a byte
            return 0
        found = self._automaton.find_matches_as_indexes(text, overlapping=True) if len(text) >= self.KNOWN else None
        if found:
            for start in sorted([start for _, start, _ in found]):
                if self._begins(text[start:]):
                    return len(text) - start
        ends = (text[-7:], text[-6:], text[-5:], text[-4:], text[-3:])
        if self._short.isdisjoint(ends):
            return 0
        return max([len(end) for end in ends if end in self._short])

    def _begins(self, end: bytes) -> bool:
        # All patterns that begin with `end` follow it in the order of bytes, immediately.
        at = bisect_right(self._patterns, end)
        return at < len(self._patterns) and self._patterns[at].startswith(end)


class _Joined:
    """A text without the line breaks that may be in wrapped base64, and where its bytes were before."""

    def __init__(self, text: bytes) -> None:
        kept, self._starts, self._shifts = [], [0], [0]
        at = length = 0
        for found in _BREAK.finditer(text):
            start, end = found.span()
            kept.append(text[at:start])
            length += start - at
            self._starts.append(length)
            self._shifts.append(end - length)
            at = end
        kept.append(text[at:])
        self.text = b"".join(kept)

    def before(self, at: int) -> int:
        """The place in the text before of what is at `at` now."""
        return at + self._shifts[bisect_right(self._starts, at) - 1]


def _automaton(patterns: Sequence[bytes], *, table: bool = True) -> BytesAhoCorasick:
    table = table and sum(map(len, patterns)) <= _TABLE_STATES
    implementation = Implementation.DFA if table else Implementation.ContiguousNFA
    return BytesAhoCorasick(patterns, MatchKind.Standard, implementation)


def _without_extensions(ordered: Sequence[bytes]) -> list[bytes]:
    """Those of `ordered` (sorted) that do not begin with another of them."""
    kept: list[bytes] = []
    for pattern in ordered:
        if not kept or not pattern.startswith(kept[-1]):
            kept.append(pattern)
    return kept


def _covered(data: bytes, spans: Sequence[Span]) -> bytes:
    """`data` with a mask in the place of each span; the same object where there is none."""
    if not spans:
        return data
    kept, at = [], 0
    for start, end in spans:
        kept.append(data[at:start])
        at = end
    kept.append(data[at:])
    return MASK.join(kept)


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged

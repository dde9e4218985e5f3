"""What trial imports print and say, on its way to a person: without secrets, and without what moves a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from lampyr.core.masking import Masker
from lampyr.core.printable import printable
from lampyr.runtime.marks import unmarked

MAX_LINE_BYTES = 16 * 1024
# How long after the end of an import its last lines may come; what it has left running is not waited for.
END_S = 1.0


class Hearing:
    """Lets through what is none of `secrets`. Lines go to stderr, like everything that is not a command's payload."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._masker = Masker(secrets)

    def clean(self, text: str) -> str:
        """Of one line or more."""
        masked = self._masker.mask(text.encode(errors="replace")).decode(errors="replace")
        return "\n".join([printable(line) for line in masked.split("\n")])

    def clean_facts(self, facts: Any) -> Any:
        """All strings in what a process has said; keys are ours."""
        match facts:
            case str():
                return self.clean(facts)
            case list():
                return [self.clean_facts(one) for one in facts]
            case dict():
                return {name: self.clean_facts(one) for name, one in facts.items()}
        return facts

    def line(self, pieces: Iterable[bytes]) -> None:
        """A line in pieces, of which a person sees so many lines: a secret may stand where it was cut."""
        stream = self._masker.stream()
        for piece in pieces:
            text = stream.feed(piece.rstrip(b"\n")) + (stream.end() if piece.endswith(b"\n") else b"")
            print(printable(text.decode(errors="replace")), file=sys.stderr)


class Pipe:
    """What processes print; `writer` is for them."""

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing
        reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, args=(reader,), name="hearing", daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        with open(reader, "rb") as pipe:
            while piece := pipe.readline(MAX_LINE_BYTES):
                _, _, text = unmarked(piece)
                self._hearing.line(_line(text, pipe))

    def finish(self) -> None:
        """The processes are done."""
        os.close(self.writer)
        self._thread.join(END_S)


def _line(piece: bytes, pipe: BinaryIO) -> Iterator[bytes]:
    """The rest of a line, in pieces; the last one ends with a line break, as if the line always did."""
    while not piece.endswith(b"\n") and (more := pipe.readline(MAX_LINE_BYTES)):
        yield piece
        piece = more
    yield piece if piece.endswith(b"\n") else piece + b"\n"

"""What a function prints, line by line under the id of the invocation that printed it."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TextIO

from lampyr.runtime import context
from lampyr.runtime.wire import MARK

_MARK = MARK.decode()


class Lines(TextIOWrapper):
    """stdout or stderr of a process that may serve several requests: lines begin with MARK, id, MARK.

    Only what is printed inside an invocation is marked; the gateway takes the marks off, and believes an id only from
    an instance that was given it.
    """

    _in_line = False

    def write(self, text: str) -> int:
        """As TextIOWrapper.write."""
        current = context.current.get(None)
        if current is None or not text:
            return super().write(text)
        mark = f"{_MARK}{current.request.id}{_MARK}"
        ended = text[-1] == "\n"
        marked = (text[:-1] if ended else text).replace("\n", "\n" + mark)
        super().write(("" if self._in_line else mark) + marked + ("\n" if ended else ""))
        self._in_line = not ended
        return len(text)


def speak() -> None:
    """Let stdout and stderr be such streams, flushed at every line, over what 1 and 2 are now."""
    sys.stdout = sys.__stdout__ = _lines(1, sys.stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _lines(2, sys.stderr)  # type: ignore[misc]


def _lines(fd: int, before: TextIO) -> Lines:
    before.flush()
    return Lines(open(fd, "wb", closefd=False), before.encoding, before.errors, line_buffering=True)

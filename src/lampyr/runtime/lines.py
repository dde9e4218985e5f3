"""What a function prints, line by line under the id of the invocation that printed it, and the level of `logging`."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO

from lampyr.runtime import context
from lampyr.runtime.marks import LEVEL, MARK

_MARK, _LEVEL = MARK.decode(), LEVEL.decode()
# From a level of `logging` on: a letter.
_LETTERS = ((logging.CRITICAL, "c"), (logging.ERROR, "e"), (logging.WARNING, "w"), (logging.INFO, "i"), (0, "d"))


class _Said(threading.local):
    """What this thread is about to write has this level, as it stands behind an id."""

    level = ""


_said = _Said()
_handle = logging.Handler.handle


class Lines(TextIOWrapper):
    """stdout or stderr of a process that may serve several requests: lines begin with MARK, id, LEVEL, letter, MARK.

    Only what is printed inside an invocation has an id, and only what `logging` writes a level; what has neither is not
    marked. The gateway takes the marks off, and believes an id only from an instance that was given it.
    """

    _in_line = False
    _whose = ""  # the line that has begun, where there is one

    def write(self, text: str) -> int:
        """As TextIOWrapper.write."""
        current = context.current.get(None)
        level = _said.level
        if (current is None and not level) or not text:
            return super().write(text)
        whose = current.request.id if current is not None else ""
        mark = f"{_MARK}{whose}{level}{_MARK}"
        ended = text[-1] == "\n"
        marked = (text[:-1] if ended else text).replace("\n", "\n" + mark)
        if not self._in_line:
            marked = mark + marked
        elif whose != self._whose:  # what another invocation has begun ends here: nobody's words are another's
            marked = f"\n{mark}{marked}"
        super().write(marked + ("\n" if ended else ""))
        self._in_line = not ended
        self._whose = whose
        return len(text)


def speak() -> None:
    """Let stdout and stderr be such streams, flushed at every line, over what 1 and 2 are now."""
    sys.stdout = sys.__stdout__ = _lines(1, sys.stdout)  # type: ignore[misc]  # Final, for mypy
    sys.stderr = sys.__stderr__ = _lines(2, sys.stderr)  # type: ignore[misc]  # Final, for mypy
    logging.Handler.handle = _handle_with_level  # type: ignore[method-assign]  # on purpose


def _handle_with_level(self: logging.Handler, record: logging.LogRecord) -> bool:
    """As Handler.handle: whatever the handler's format, what it writes meanwhile has the level of its record."""
    with at_level(record.levelno):
        return _handle(self, record)


@contextmanager
def at_level(level: int) -> Iterator[None]:
    """What this thread prints meanwhile has this level of `logging`."""
    before = _said.level
    _said.level = _LEVEL + next((letter for least, letter in _LETTERS if level >= least), "d")
    try:
        yield
    finally:
        _said.level = before


def _lines(fd: int, before: TextIO) -> Lines:
    before.flush()
    return Lines(open(fd, "wb", closefd=False), before.encoding, before.errors, line_buffering=True)

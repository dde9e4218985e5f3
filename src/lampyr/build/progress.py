"""What a long command is at, for people who wait."""

from __future__ import annotations

import os
import sys
import threading
import time

# A command that is done before has nothing to say about how far it is.
QUIET_S = 1.0


class Progress:
    """What a long command is at, on stderr, once it has taken a second or begins with what takes long.

    In a terminal it is one line that changes, elsewhere at most a line a second.
    """

    def __init__(self, *, alone: bool = True) -> None:
        """`alone`: nobody else writes lines to stderr meanwhile."""
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._speaking = False
        self._text = ""
        self._shown = ""
        self._shown_s = 0.0
        self._rewrites = alone and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Progress:
        self._speak_in(QUIET_S)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._speaking and self._rewrites:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def at(self, text: str) -> None:
        """Something has begun."""
        with self._lock:
            self._text = text
            if self._speaking:
                self._show()

    def now_at(self, text: str) -> None:
        """Something has begun that takes long, which is said at once."""
        with self._lock:
            self._speaking = True
            self._text = text
            self._show()

    def _speak_in(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._speak)
        self._timer.daemon = True
        self._timer.start()

    def _speak(self) -> None:
        with self._lock:
            self._timer = None
            self._speaking = True
            if self._text:
                self._show()

    def _show(self) -> None:
        if self._rewrites:
            columns = os.get_terminal_size(2).columns or 80
            sys.stderr.write(f"\r\x1b[K{f'lampyr: {self._text}'[: columns - 1]}")
            sys.stderr.flush()
        elif self._text != self._shown:
            soon_s = self._shown_s + QUIET_S - time.monotonic()
            if soon_s <= 0:
                self._shown, self._shown_s = self._text, time.monotonic()
                print(f"lampyr: {self._text}", file=sys.stderr, flush=True)
            elif self._timer is None:
                self._speak_in(soon_s)

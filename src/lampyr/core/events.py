"""Where the events of a stream of them end: whoever adds one of its own must not do so in the midst of another."""

from __future__ import annotations

from typing import Final

_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")  # WHATWG HTML 9.2.5
_LONGEST: Final = 4


class Tail:
    """The last that has passed of one stream."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b"\n\n"

    def passed(self, data: bytes) -> None:
        self._last = data[-_LONGEST:] if len(data) >= _LONGEST else (self._last + data)[-_LONGEST:]

    @property
    def between(self) -> bool:
        """Whether another event may begin here."""
        return self._last.endswith(_ENDS)

"""What one stream of a function's process says, on its way to the log: whose each line is, and no secret in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampyr.gateway.stacks import Stacks
from lampyr.runtime.marks import unmarked

if TYPE_CHECKING:
    from lampyr.core.masking import Masker, MaskStream
    from lampyr.gateway.log import Log
    from lampyr.node.instance import Instance


class Voice:
    """`stream` is "stdout" or "stderr", `instance` None for the process that imports the function."""

    __slots__ = ("_instance", "_level", "_log", "_long", "_masker", "_route", "_stacks", "_stream", "_whose")

    def __init__(self, log: Log, masker: Masker, route: str, stream: str, instance: Instance | None) -> None:
        self._log = log
        self._masker = masker
        self._route = route
        self._stream = stream
        self._instance = instance
        self._long: MaskStream | None = None  # of a line that comes in parts: a secret may stand where it is cut
        self._stacks = Stacks()
        self._whose: str | None = None
        self._level = "info"

    def say(self, line: bytes, ended: bool) -> None:
        """A line, or a part of one that is too long to come as a whole; with `ended` the last."""
        if self._long is None:
            if ended and not self._stacks.shows(line):
                return
            id, level, line = unmarked(line)
            instance = self._instance
            whose = instance.whose(id) if instance is not None else None
            if ended:
                self._log.output(self._route, whose, self._stream, level, line, self._masker)
                return
            self._whose, self._level = whose, level
            self._long = self._masker.stream()
        text = self._long.feed(line)
        if ended:
            text += self._long.end()
            self._long = None
        self._log.output(self._route, self._whose, self._stream, self._level, text, None)

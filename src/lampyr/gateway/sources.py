"""Where stacks say that code is: a deployment runs a copy of the project, and what somebody opens is the project."""

from __future__ import annotations

import re

from lampyr.gateway.stacks import QUOTE


class Sources:
    """`copies` is the folder of all deployments, `project` that which they are copies of."""

    __slots__ = ("_copies", "_line", "_project", "_text")

    def __init__(self, copies: str = "", project: str = "") -> None:
        self._copies = copies.encode()
        copy = rf'{re.escape(copies)}/[^/"]+(?=/)' if copies else "(?!)"
        self._text = re.compile(f'(?:^|(?<=File ")){copy}', re.MULTILINE)
        self._line = re.compile(f'(?<=File "){copy}'.encode())
        self._project = project

    def in_text(self, text: str) -> str:
        """A traceback, or what is wrong with what a handler of a file has returned."""
        return self._text.sub(lambda _: self._project, text)

    def in_line(self, line: bytes) -> bytes:
        """A line that a function has written, which is hardly ever of a stack."""
        return (
            self._line.sub(lambda _: self._project.encode(), line) if QUOTE in line and self._copies in line else line
        )

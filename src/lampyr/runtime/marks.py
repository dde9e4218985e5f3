"""The mark at the beginning of a line that a function has written: whose it is, and its level.

`MARK id MARK`, `MARK id LEVEL letter MARK` or `MARK LEVEL letter MARK`, made in runtime/lines.py and taken off outside.
"""

from __future__ import annotations

MARK = b"\x1e"
LEVEL = b"\x1f"
LETTERS = {b"d": "debug", b"i": "info", b"w": "warning", b"e": "error", b"c": "critical"}


def unmarked(line: bytes) -> tuple[str, str, bytes]:
    """Whose a line says it is ("" where it does not), its level, and the line without its mark."""
    if line[:1] != MARK:
        return "", "info", line
    said, mark, rest = line[1:].partition(MARK)
    if not mark:
        return "", "info", line
    id, _, letter = said.partition(LEVEL)
    return id.decode("ascii", "replace"), LETTERS.get(letter, "info"), rest


def says_whose(line: bytes) -> bool:
    """Whether there is an id in the mark of a line, if it has one."""
    return line[:1] == MARK and line[1:2] != LEVEL

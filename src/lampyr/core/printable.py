"""Text that others have written, as it may stand in a terminal: what could move its cursor, retitle it or turn its text
around is shown as an escape."""

from __future__ import annotations

import unicodedata

# Joiners that emoji and some scripts are written with; they move nothing.
_HARMLESS = frozenset("\t\u200c\u200d")


def printable(text: str) -> str:
    """One line without control, format and separator characters (Unicode's C and Z, but for spaces).

    C0 and C1 controls begin the escape sequences of terminals (ECMA-48); format characters reverse the direction of
    text (UAX #9) or are not seen at all.
    """
    return text if text.isprintable() else "".join([_shown(one) for one in text])


def _shown(one: str) -> str:
    kind = unicodedata.category(one)
    if (kind[0] != "C" and kind not in ("Zl", "Zp")) or one in _HARMLESS:
        return one
    number = ord(one)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"

"""What people and scripts read: payload on stdout, everything else on stderr, colour only where it is wanted."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lampyr.errors import LampyrError
    from lampyr.types import Problem


def payload(text: str) -> None:
    """What was asked for, to stdout."""
    print(text)


def payload_json(value: Any) -> None:
    """What was asked for, as one line of JSON on stdout."""
    print(json.dumps(value, separators=(",", ":")))


def note(text: str) -> None:
    """Something a person may want to know, to stderr."""
    print(text, file=sys.stderr)


def report(error: LampyrError, *, as_json: bool) -> None:
    """An error, to stderr; with `as_json` on stdout as well, where a script looks for it (SPEC 5)."""
    if as_json:
        payload_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        sys.stdout.flush()
    _line("error", "red", error.message, error.hint)


def problem(kind: str, found: Problem) -> None:
    """A problem of a project, to stderr; `kind` is "error" or "warning"."""
    place = f"{found.file}:{found.line}" if found.line else found.file
    _line(kind, "red" if kind == "error" else "yellow", f"{place}: {found.message}", found.hint)


def _line(kind: str, colour: str, message: str, hint: str) -> None:
    note(f"{_styled('lampyr:', bold=True)} {_styled(f'{kind}:', fg=colour, bold=True)} {message}")
    if hint:
        note(f"{_styled('hint:', fg='cyan')} {hint}")


def _styled(text: str, **style: Any) -> str:
    """`text` in colour for a terminal that shows it and a person who wants it (https://no-color.org)."""
    plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)

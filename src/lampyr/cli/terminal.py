"""What people and scripts read: payload on stdout, everything else on stderr, colour only where it is wanted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from lampyr.errors import LampyrError
    from lampyr.types import Problem

# No table of ours is as wide as this, so that none is folded on its way to another program.
PIPE_WIDTH = 1000


def payload(text: str) -> None:
    """What was asked for, to stdout."""
    print(text)


def payload_json(value: Any) -> None:
    """What was asked for, as one line of JSON on stdout."""
    print(json.dumps(value, separators=(",", ":")))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Rows for a person, to stdout; a pipe gets every cell whole.

    With a `total` at its foot everything but the first column is numbers.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    style = "bold" if _has_colours(sys.stdout) else ""
    shown = Table(box=None, pad_edge=False, header_style=style, footer_style=style, show_footer=total is not None)
    for number, column in enumerate(columns):
        right = total is not None and number > 0
        foot = Text(total[number]) if total is not None else ""
        shown.add_column(column, foot, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))  # `[id]` is a name, not a style
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    with console.capture() as drawn:
        console.print(shown)
    payload("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def width() -> int:
    """Characters in a line of stdout."""
    from shutil import get_terminal_size

    return get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def note(text: str) -> None:
    """Something a person may want to know, to stderr."""
    print(text, file=sys.stderr)


def report(error: LampyrError, *, as_json: bool) -> None:
    """An error, to stderr; with `as_json` on stdout as well, where a script looks for it (SPEC 5)."""
    if as_json:
        told = {"code": error.code, "message": error.message, "hint": error.hint}
        payload_json(
            {"error": {**told, "problems": [asdict(one) for one in error.problems]} if error.problems else told}
        )
        sys.stdout.flush()
    for one in error.problems:
        problem("error", one)
    _line("error", "red", error.message, error.hint)


def problem(kind: str, found: Problem) -> None:
    """A problem of a project, to stderr; `kind` is "error" or "warning"."""
    place = f"{found.file}:{found.line}" if found.line else found.file
    _line(kind, "red" if kind == "error" else "yellow", f"{place}: {found.message}", found.hint)


def _line(kind: str, colour: str, message: str, hint: str) -> None:
    note(f"{_styled('lampyr:', bold=True)} {_styled(f'{kind}:', fg=colour, bold=True)} {message}")
    if hint:
        note(f"{_styled('hint:', fg='cyan')} {hint}")


def styled(text: str, **style: Any) -> str:
    """`text` on stdout, in colour for a terminal that shows it and a person who wants it (https://no-color.org)."""
    return click.style(text, **style) if _has_colours(sys.stdout) else text


def _styled(text: str, **style: Any) -> str:
    """The same on stderr."""
    return click.style(text, **style) if _has_colours(sys.stderr) else text


def _has_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

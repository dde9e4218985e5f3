"""`lampyr logs`: what functions and the platform have said, and what they say."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, kept_in, state_option
from lampyr.core.moments import SINCE, moment
from lampyr.core.printable import printable
from lampyr.errors import LampyrError
from lampyr.logs import reading
from lampyr.logs.line import LEVELS, Line, stamp
from lampyr.logs.reading import Follower, Query

POLL_S = 0.1
INTERRUPTED = 130
# What is shown first of what was said before, where nobody asks for more.
FOLLOWED_LINES = 10
# Of an invocation's id (gateway/ids.py), and how many of them are asked for at least.
ID_CHARS = 24
MOST_NAMED = 3
ID_HINT = "an id is what x-lampyr-id of a response says; [logs] in lampyr.toml says how long lines are kept"
FEWEST_ID_CHARS = 6
_COLOURS = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "red"}


@click.command(short_help="Show what the functions said, and what went wrong.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is said from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Show the latest N only.")
@click.option("--id", "id", metavar="ID", help="Only the lines of this invocation (x-lampyr-id, or its beginning).")
@click.option("--function", metavar="ROUTE", help="Only the lines of this function, such as /api/chat.")
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="Only lines of this level and of worse.")
@click.option("--since", metavar="WHEN", help=f"Only lines from then on: {SINCE}.")
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
@folder_argument
def logs(
    folder: Path,
    follow: bool,
    lines: int | None,
    id: str | None,
    function: str | None,
    level: str,
    since: str | None,
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Show what the functions of the project in DIR have printed, their requests, and what went wrong.

    It reads what is kept, whether a server is running or not.
    """
    root = kept_in(folder, state_dir) / "logs"
    if id is not None and len(id) < ID_CHARS:
        id = _whole(root, id)
    query = Query(id=id, function=function, level=level, since=_since(since))
    if follow:
        try:
            _follow(root, query, lines, as_json)
        except KeyboardInterrupt:  # Click would say something
            return INTERRUPTED
    found = reading.read(root, query) if lines is None else reading.last(root, query, lines)
    if not _show(found, as_json) and lines != 0:
        _explain_nothing(root, query)
    elif lines is None and not since and id is None and reading.has_forgotten(root, query):
        terminal.note("lampyr: lines before these were let go; [logs] in lampyr.toml says how many are kept")
    return 0


def _whole(root: Path, beginning: str) -> str:
    """The one id that begins so. Raises LampyrError."""
    if len(beginning) < FEWEST_ID_CHARS:
        message = f"{beginning!r} is too short: the first {FEWEST_ID_CHARS} characters of an id, or more"
        raise click.BadParameter(message, param_hint="--id")
    found = sorted(reading.ids(root, Query(id=beginning)))
    if not found:
        raise LampyrError(f"no line of an invocation {beginning}... is kept", ID_HINT)
    if len(found) > 1:
        raise LampyrError(f"{len(found)} invocations begin with {beginning}", f"give more of it: {_few(found)}")
    return found[0]


def _few(ids: list[str]) -> str:
    return ", ".join(ids[:MOST_NAMED]) + (", ..." if len(ids) > MOST_NAMED else "")


def _since(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return stamp(moment(text, time.time()))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not {SINCE}", param_hint="--since") from None


def _follow(root: Path, query: Query, lines: int | None, as_json: bool) -> None:
    """Show the end of what there is, all of it where it is about one invocation or one time, and then what comes."""
    asked = query.id is not None or query.since
    follower = Follower(root, query)
    _show(follower.latest(lines if lines is not None else sys.maxsize if asked else FOLLOWED_LINES), as_json)
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # tells of errors only: of a pipe that nobody reads any more
    while True:
        sys.stdout.flush()
        if reader.poll(POLL_S * 1000):
            raise BrokenPipeError
        _show(follower.poll(), as_json)


def _show(lines: Iterable[Line], as_json: bool) -> bool:
    """Print lines; False where there were none."""
    shown = False
    for line in lines:
        shown = True
        if as_json:
            terminal.payload(line.json())
        else:
            _print(line)
    return shown


def _print(line: Line) -> None:
    """In the words of the server's own terminal, with time and level in front."""
    when = terminal.styled(line.time, fg="bright_black")
    level = (
        terminal.styled(f"{line.level:<8}", fg=_COLOURS[line.level]) if line.level in _COLOURS else f"{line.level:<8}"
    )
    whose = " ".join(printable(one) for one in (line.function, line.id) if one)
    for text in line.message.split("\n"):
        said = printable(text)
        if line.stream == "access":
            terminal.payload(f"{when} {level} {said} {line.id}")
        else:
            terminal.payload(f"{when} {level} {whose or 'lampyr'} | {said}")


def _explain_nothing(root: Path, query: Query) -> None:
    """Say why there is nothing to show. Raises LampyrError for what nothing was ever kept of."""
    known = reading.functions(root)
    if not root.exists() and query.function is None and query.id is None:
        terminal.note("lampyr: nothing has been logged yet")
    elif query.function is not None and query.function not in known:
        near = get_close_matches(f"/{query.function.strip('/')}", known, 1, 0.6)
        hint = f'did you mean "{near[0]}"?' if near else f"there are lines of: {', '.join(known) or 'no function'}"
        raise LampyrError(f"no line of a function {query.function} is kept", hint)
    elif query.id is not None and not any(reading.last(root, Query(id=query.id), 1)):
        raise LampyrError(f"no line of an invocation {query.id} is kept", ID_HINT)
    else:
        terminal.note("lampyr: no line that is kept is like that")

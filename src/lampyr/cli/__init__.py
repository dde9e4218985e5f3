"""The command line: finds the command, runs it, and turns whatever goes wrong into one clear line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from lampyr.cli import terminal
from lampyr.cli.commands import Commands
from lampyr.errors import LampyrError, UsageError
from lampyr.version import VERSION

_HINTS = {
    errno.ENOSPC: "free some space there, or write to another place",
    errno.EDQUOT: "free some space there, or write to another place",
    errno.EACCES: "check the permissions of the file and of the folders above it",
    errno.EROFS: "write to another place",
}
FAILED, USAGE, INTERRUPTED = 1, 2, 130

# Where each command lives; a module is imported when its command (or the list of all of them) is asked for.
COMMANDS = {
    "init": "lampyr.cli.project",
    "dev": "lampyr.cli.serve",
    "build": "lampyr.cli.build",
    "start": "lampyr.cli.serve",
    "deploy": "lampyr.cli.deploy",
    "deployments": "lampyr.cli.deploy",
    "rollback": "lampyr.cli.deploy",
    "promote": "lampyr.cli.deploy",
    "secrets": "lampyr.cli.secrets",
    "usage": "lampyr.cli.usage",
    "model": "lampyr.cli.model",
    "ps": "lampyr.cli.ps",
    "logs": "lampyr.cli.logs",
    "console": "lampyr.cli.console",
    "doctor": "lampyr.cli.doctor",
}


@click.command(
    cls=Commands,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, message="lampyr %(version)s")
def lampyr() -> None:
    """Self-hosted serverless for Python AI backends: a route file on disk is a function.

    A first project: `lampyr init my-app`, then `lampyr dev my-app`.
    """


def main() -> NoReturn:
    """The console script: never returns, never shows a traceback unless LAMPYR_DEBUG=1 asks for it."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code (SPEC 5: 0 ok, 1 failed, 2 usage, 130 interrupted)."""
    _open_what_is_closed()
    as_json = any(word == "--json" or word.startswith("--json=") for word in arguments)
    try:
        result = lampyr.main(list(arguments), prog_name="lampyr", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:
        if _reader_is_gone(error):
            return FAILED
        if isinstance(error, SystemExit):
            raise
        code, problem = _explain(error)
        if problem is not None:
            _report(problem, as_json=as_json)
        _drop_what_is_left()
        return code


def _report(problem: LampyrError, *, as_json: bool) -> None:
    try:
        terminal.report(problem, as_json=as_json)
    except OSError:  # stdout takes nothing; stderr may
        terminal.report(problem, as_json=False)


def _open_what_is_closed() -> None:
    """Nowhere in the place of a standard stream that the caller has closed (`>&-`), where a socket might land else."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the life of the process


def _explain(error: BaseException) -> tuple[int, LampyrError | None]:
    """The exit code for `error`, and what to say about it (None: nothing)."""
    match error:
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED, None
        case click.UsageError():
            return USAGE, _usage(error)
        case UsageError():
            return USAGE, error
        case LampyrError():
            return FAILED, error
        case click.ClickException():
            return FAILED, LampyrError(error.format_message())
        case OSError() if error.strerror:
            message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            return FAILED, LampyrError(message, _HINTS.get(error.errno or 0, ""))
        case _:
            return FAILED, _internal(error)


def _usage(error: click.UsageError) -> UsageError:
    command = error.ctx.command_path if error.ctx is not None else "lampyr"
    hint = f"`{command} --help` shows how it is used"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.message, file=sys.stderr)
        return UsageError("which command?", hint)
    return UsageError(_without_full_stop(error.format_message()), hint)


def _internal(error: BaseException) -> LampyrError:
    if os.environ.get("LAMPYR_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
        hint = "the traceback above says where"
    else:
        hint = "this is a bug in Lampyr; LAMPYR_DEBUG=1 shows where, please report it with that"
    problem = LampyrError(f"internal error: {type(error).__name__}: {error}", hint)
    problem.code = "INTERNAL"
    return problem


def _without_full_stop(text: str) -> str:
    """A message without the capital and the full stop of Click's: it follows `lampyr: error: ` and ends a line."""
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def _reader_is_gone(error: BaseException) -> bool:
    """Whether stdout was a pipe that nobody reads any more (`lampyr ... | head`): no reason to say anything.

    Click turns EPIPE into exit code 1.
    """
    cause = error if isinstance(error, BrokenPipeError) else error.__context__
    if not isinstance(cause, BrokenPipeError):
        return False
    _to_nowhere()
    return True


def _drop_what_is_left() -> None:
    """What stdout did not take (a full disk) it does not take later: Python would end with 120 and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere()


def _to_nowhere() -> None:
    """Python flushes stdout once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""`lampyr build`: check a project, import its functions once, and report what each of them brings with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, project_in, state_in, state_option, vault_values
from lampyr.errors import LampyrError

if TYPE_CHECKING:
    from lampyr.build.report import Load, Report

# The packages of a function that a person is shown; JSON has them all.
SHOWN = 5
# Nothing listens there (RFC 863): a client that is only made at import needs an address, and nobody behind it.
DISCARD_PORT = 9


@click.command(short_help="Check the project in DIR and import its functions once.")
@folder_argument
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(folder: Path, state_dir: Path | None, as_json: bool) -> int:
    """Check the project in DIR, import its functions once, and say what each of them loads.

    Any error makes it fail.
    """
    from lampyr.build import report

    try:
        found = _look(folder, state_dir)
    except LampyrError as error:
        if not as_json:
            raise
        terminal.payload_json(report.nothing(error))
        terminal.report(error, as_json=False)
        return 1
    if as_json:
        terminal.payload_json(report.as_json(found))
    else:
        for line in _table(found):
            terminal.payload(line)
    for kind, problems in (("warning", found.project.warnings), ("error", found.project.errors)):
        for one in problems:
            terminal.problem(kind, one)
    return 1 if found.project.errors else 0


def _look(folder: Path, state_dir: Path | None) -> Report:
    root = project_in(folder)
    from lampyr import config
    from lampyr.build import brokering, report
    from lampyr.build.progress import Progress
    from lampyr.node.limits import AtOnce

    settings = config.load(root)
    state = state_in(root, state_dir)
    vault = vault_values(state, "production")
    with Progress() as progress, closing(AtOnce(terminal.note)) as limits:
        brokered = brokering.of(settings.providers.values(), f"http://127.0.0.1:{DISCARD_PORT}", "00")
        return report.make(root, state, settings, brokered, vault, progress, limits.fence)


def _table(report: Report) -> Iterator[str]:
    """A line for each function, and under it the largest packages and who imports them."""
    from lampyr.build.report import Load

    width = max((len(function.route) for function in report.project.functions), default=0)
    for function in report.project.functions:
        load = report.loads.get(function.route, Load())
        answers = "an ASGI application" if function.asgi else " ".join(function.methods)
        yield f"{function.route:<{width}}  {function.settings.runtime:<8}  {_weight(load)}  {answers}".rstrip()
        rows = [(one.name, _size(one.bytes), one.imported_by) for one in load.packages[:SHOWN]]
        names = max((len(name) for name, _, _ in rows), default=0)
        for name, size, by in rows:
            yield f"    {name:<{names}}  {size:>9}  imported by {by}"
        if len(load.packages) > SHOWN:
            rest = load.packages[SHOWN:]
            yield f"    {len(rest)} more, {_size(sum(one.bytes for one in rest))}"


def _weight(load: Load) -> str:
    if load.files is None or load.bytes is None or load.import_ms is None:
        return f"{'was not imported':<34}"
    files = f"{load.files} file{'' if load.files == 1 else 's'}"
    return f"{files:>10}  {_size(load.bytes):>9}  {load.import_ms:>8.1f} ms"


def _size(count: int) -> str:
    """A number of bytes, to three digits."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"

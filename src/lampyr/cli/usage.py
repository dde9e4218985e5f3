"""`lampyr usage`: what was used, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, project_in
from lampyr.ledger.usage import BY

_COLUMNS = ("invocations", "errors", "refused", "cold_starts", "billed_ms", "cpu_ms", "gb_s", "cost_usd")


@click.command
@folder_argument
@click.option("--by", type=click.Choice(BY), default="function", show_default=True, help="What to group by.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the server keeps its state.  [default: .lampyr in the project]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the groups and their total as JSON.")
def usage(folder: Path, by: str, state_dir: Path | None, as_json: bool) -> None:
    """Show what the functions of the project in DIR have used, up to this moment.

    It reads the ledger, whether a server is running or not.
    """
    root = project_in(folder)
    from lampyr.ledger import store
    from lampyr.ledger.usage import report

    found = report(store.totals((state_dir or root / ".lampyr").absolute() / "ledger"), by)
    if as_json:
        terminal.payload_json(found)
        return
    rows = [[str(one[by] or "-"), *_cells(one)] for one in found["groups"]]
    for row in _aligned([[by, *_COLUMNS], *rows, ["total", *_cells(found["total"])]]):
        terminal.payload(row)


def _cells(figures: dict[str, Any]) -> list[str]:
    return [f"{figures[name]:,.3f}" if isinstance(figures[name], float) else f"{figures[name]:,}" for name in _COLUMNS]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]

"""`lampyr ps`: what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, state_in, state_option
from lampyr.errors import UsageError

COLUMNS = ("FUNCTION", "RUNTIME", "DEPLOYMENT", "SNAPSHOT", "INSTANCE", "PID", "STATE", "IN FLIGHT", "MEMORY")
# A terminal that is narrower has no room for everything beside the names of functions.
WIDE = 100
NARROW_COLUMNS = ("FUNCTION", "SNAPSHOT", "INSTANCE", "PID", "STATE", "IN FLIGHT", "MEMORY")
# Of several deployments, such as previews, a row says its own all the same.
NARROW_DEPLOYMENTS = ("FUNCTION", "DEPLOYMENT", "SNAPSHOT", "INSTANCE", "STATE", "IN FLIGHT", "MEMORY")


@click.command(short_help="Show what runs: functions and their instances.")
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print functions and instances as JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@folder_argument
def ps(folder: Path, state_dir: Path | None, as_json: bool, watch: bool) -> None:
    """Show the functions of the server that runs for DIR, and their instances."""
    from lampyr.control import door

    if watch:
        if as_json:
            raise UsageError("--watch is for people, --json for programs", "use one of them")
        from lampyr.cli import watching

        watching.watch(state_in(folder, state_dir))
    running = door.ask(state_in(folder, state_dir), "ps")
    if as_json:
        terminal.payload_json(running)
    else:
        _show(running["functions"])


def _show(functions: list[dict[str, Any]]) -> None:
    several = len({one["deployment"] for one in functions}) > 1
    narrow = NARROW_DEPLOYMENTS if several else NARROW_COLUMNS
    shown = COLUMNS if terminal.width() >= WIDE else narrow
    places = [COLUMNS.index(column) for column in shown]
    rows = [row for function in functions for row in _rows(function)]
    terminal.table(shown, [tuple(row[place] for place in places) for row in rows])


def _rows(function: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each instance; one without for a function that has none."""
    snapshot = function["snapshot"] + (" +1" if function["parked"] else "")
    facts = (function["function"], function["runtime"], function["deployment"], snapshot)
    return [(*facts, *_cells(one)) for one in function["instances"]] or [(*facts, *"-----")]


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    return one["id"], str(one["pid"]), one["state"], str(one["in_flight"]), f"{one['memory_mb']:.1f} MB"

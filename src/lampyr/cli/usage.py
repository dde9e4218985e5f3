"""`lampyr usage`: what was used, and what it cost."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from lampyr.cli import terminal
from lampyr.cli.place import folder_argument, kept_in, project_in, state_option
from lampyr.core.moments import SINCE, moment
from lampyr.errors import ConfigError
from lampyr.ledger.usage import BY

COLUMNS: tuple[str, ...] = ("INVOCATIONS", "ERRORS", "REFUSED", "COLD", "BUSY", "CPU", "GB-S")
SPENT_COLUMNS = ("TOKENS IN", "TOKENS OUT", "COST")
NARROW_COLUMNS: tuple[str, ...] = ("INVOCATIONS", "ERRORS", "BUSY", "GB-S")
NARROW_SPENT_COLUMNS = ("TOKENS", "COST")
NARROWEST_SPENT_COLUMNS = ("INVOCATIONS", "BUSY", "COST")
# A terminal that is narrower gets fewer columns and rounder numbers: a row must not lose its name.
WIDE = 80
WIDE_SPENT = 120
NARROW_SPENT = 76
# Of a longer time the part of an hour before it is next to nothing.
RECENT_S = 86_400


@click.command(short_help="Show what the functions have used, and what it cost.")
@folder_argument
@click.option("--by", type=click.Choice(BY), default="function", show_default=True, help="What to group by.")
@click.option("--since", metavar="WHEN", help=f"Only from the hour that holds WHEN on: {SINCE}.")
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print the groups and their total as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV.")
def usage(folder: Path, by: str, since: str | None, state_dir: Path | None, as_json: bool, as_csv: bool) -> None:
    """Show what the functions of the project in DIR have used, up to this moment.

    It reads the ledger, whether a server is running or not.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: one of them")
    root, kept = project_in(folder), kept_in(folder, state_dir)
    from lampyr.ledger import store
    from lampyr.ledger import usage as used

    now_s = time.time()
    try:
        since_s = moment(since, now_s) if since is not None else 0.0
    except ValueError:
        raise click.BadParameter(f"{since!r} is not {SINCE}", param_hint="--since") from None
    since_hour = int(since_s // 3600)
    if 0 < now_s - since_s < RECENT_S and since_s % 3600:
        terminal.note(f"lampyr: sums are kept by the hour: this counts from {used.hour(since_hour)}, not from {since}")
    if since_hour * 3600 > now_s:
        terminal.note(f"lampyr: {since} has yet to come, so nothing is counted")
    totals = store.totals(kept / "ledger", by, since_hour)
    found = used.report(totals.groups, by)
    begun_hour = since_hour or totals.first_hour
    hours = 0.0 if begun_hour is None else max(now_s / 3600 - begun_hour, 0.0)
    found["since"] = None if begun_hour is None else used.hour(begun_hour)
    found["always_on"] = used.always_on(found["total"], hours, _machine_per_hour(root))
    if as_json:
        terminal.payload_json(found)
    elif as_csv:
        terminal.payload(_csv(by, found["groups"]))
    else:
        _show(by, found)


def _machine_per_hour(root: Path) -> float | None:
    from lampyr import config

    try:
        return config.load(root).machine_per_hour
    except ConfigError as error:
        terminal.note(f"lampyr: warning: without the price of a machine: {error.message}")
        return None


def _csv(by: str, groups: list[dict[str, Any]]) -> str:
    """Names that a spreadsheet would take for a formula get an apostrophe in front."""
    from lampyr.ledger.tally import SUMS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([by, *SUMS])
    for one in groups:
        name = one[by] or ""
        writer.writerow([f"'{name}" if name[:1] in tuple("=+-@\t\r") else name, *(one[figure] for figure in SUMS)])
    return text.getvalue().removesuffix("\n")


# --- for people


def _show(by: str, found: dict[str, Any]) -> None:
    total = found["total"]
    spent = bool(total["calls"] or total["cost_usd"])
    columns, cells = _layout(terminal.width(), spent)
    rows = [(_name(one[by]), *cells(one)[: len(columns)]) for one in found["groups"]]
    terminal.table((by.upper(), *columns), rows, total=("total", *cells(total)[: len(columns)]))
    if found["since"] is None:
        terminal.note("lampyr: nothing has been called yet")
        return
    always = found["always_on"]
    terminal.payload("")
    busy, cpu = _duration(total["billed_ms"]), _duration(total["cpu_ms"])
    share = _share(always["busy_hours"] / always["hours"] if always["hours"] else 0.0)
    terminal.payload(f"since {found['since']}  {_hours(always['hours'])}, busy {busy} of it ({share}), CPU time {cpu}")
    if always["usd"] is None:
        terminal.payload("a server all day   its price is not known: [prices] machine_per_hour in lampyr.toml")
    else:
        terminal.payload(f"a server all day   {_usd(always['usd'])}, at {_usd(always['machine_per_hour'])} an hour")
        terminal.payload(f"what was used      {_usd(always['busy_usd'])}, for as long as functions were busy")
    if spent:
        terminal.payload(f"providers          {_usd(total['cost_usd'])}")


def _layout(width: int, spent: bool) -> tuple[tuple[str, ...], Callable[[dict[str, Any]], tuple[str, ...]]]:
    """The columns behind the name, and what makes their cells."""
    if spent and width < NARROW_SPENT:
        return NARROWEST_SPENT_COLUMNS, lambda one: itemgetter(0, 2, 5)(_narrow_cells(one))
    if width < (WIDE_SPENT if spent else WIDE):
        return (*NARROW_COLUMNS, *(NARROW_SPENT_COLUMNS if spent else ())), _narrow_cells
    return (*COLUMNS, *(SPENT_COLUMNS if spent else ())), _cells


def _name(name: str | None) -> str:
    return "".join(one if one.isprintable() else "?" for one in name) if name else "-"


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{one[name]:,}" for name in ("invocations", "errors", "refused", "cold_starts"))
    used = (_duration(one["billed_ms"]), _duration(one["cpu_ms"]), f"{one['gb_s']:,.2f}")
    return (*counts, *used, f"{one['tokens_in']:,}", f"{one['tokens_out']:,}", _usd(one["cost_usd"]))


def _narrow_cells(one: dict[str, Any]) -> tuple[str, ...]:
    used = (_duration(one["billed_ms"]), _count(round(one["gb_s"], 2)), _count(one["tokens_in"] + one["tokens_out"]))
    return (_count(one["invocations"]), _count(one["errors"]), *used, _usd(one["cost_usd"]))


def _count(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size * 10:
            return f"{number / size:,.0f}{unit}"
    return f"{number:,.6g}"


def _duration(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.1f} ms"
    return f"{ms / 1000:,.1f} s" if ms < 600_000 else _hours(ms / 3_600_000)


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.1f} s"
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:,.1f} h"


def _share(part: float) -> str:
    return f"{part:.2%}" if part >= 0.0001 or not part else "<0.01%"


def _usd(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}" if amount >= 0.0001 else "<$0.0001"

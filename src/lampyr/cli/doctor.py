"""`lampyr doctor`: each promise of isolation, and the mechanism that holds it on this machine."""

from __future__ import annotations

import sys
from typing import Any

import click

from lampyr.cli import terminal
from lampyr.errors import LampyrError


@click.command
@click.option("--strict", is_flag=True, help="Fail if any promise is kept by a fallback only.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of the promises as JSON.")
def doctor(strict: bool, as_json: bool) -> int:
    """Try what keeps functions apart here, and say what holds."""
    from lampyr.node import ends, hierarchy, isolation
    from lampyr.runtime import sandbox

    missing = hierarchy.find()[1] if sys.platform == "linux" else {}
    found = isolation.promises(sandbox.find().as_message(), missing, told=ends.answers())
    if as_json:
        terminal.payload_json([_entry(one) for one in found])
    else:
        for one in found:
            terminal.payload(_row(one))
    lacking = [one.name for one in found if not one.holds]
    if not lacking and not as_json:
        terminal.payload(f"all {len(found)} promises hold on this machine")
    if strict and lacking:
        problem = LampyrError(
            f"{len(lacking)} of {len(found)} promises are kept by a fallback: {', '.join(lacking)}",
            "the lines above say how each can be had; without --strict they are a warning",
        )
        terminal.report(problem, as_json=False)
        return 1
    return 0


def _entry(one: Any) -> dict[str, Any]:
    return {"promise": one.promise, "mechanism": one.mechanism, "holds": one.holds, "hint": one.hint, "name": one.name}


def _row(one: Any) -> str:
    rows = [f"{'holds' if one.holds else 'falls short':<12} {one.promise}", f"{'':<12} by {one.mechanism}"]
    return "\n".join([*rows, f"{'':<12} hint: {one.hint}"] if one.hint else rows)

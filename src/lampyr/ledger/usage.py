"""What was used, in groups (SPEC 5 `usage`), and next to it a server that runs all day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from lampyr.ledger.tally import HOUR_MS, SUMS

BY = ("function", "day", "hour", "provider", "model", "outcome")
_WHOLE = frozenset(
    {
        *("invocations", "errors", "refused", "cold_starts", "bytes_in", "bytes_out"),
        *("tokens_in", "tokens_out", "calls"),
    }
)


def report(totals: Mapping[str | int, list[float]], by: str) -> dict[str, Any]:
    """`{"groups": [...], "total": {...}}`; days and hours are those of UTC.

    The provider and model of what called none are null, and so is the outcome of what nobody noted it of.
    """
    total = [sum(column) for column in zip(*totals.values(), strict=True)] or [0.0] * len(SUMS)
    groups = [{by: _written(by, group), **_figures(totals[group])} for group in sorted(totals)]
    return {"groups": groups, "total": _figures(total)}


def always_on(total: Mapping[str, float], hours: float, machine_per_hour: float | None) -> dict[str, Any]:
    """A server that runs for `hours`, next to what was used; dollars are null where nobody has said its price.

    Where several functions were busy at once, each of them counts: `busy_hours` is the most that can be said.
    """
    busy_hours = total["billed_ms"] / HOUR_MS
    return {
        "hours": round(hours, 6),
        "busy_hours": round(busy_hours, 6),
        "cpu_hours": round(total["cpu_ms"] / HOUR_MS, 6),
        "machine_per_hour": machine_per_hour,
        "usd": None if machine_per_hour is None else round(hours * machine_per_hour, 6),
        "busy_usd": None if machine_per_hour is None else round(busy_hours * machine_per_hour, 6),
    }


def hour(number: int) -> str:
    """An hour since 1970, as people and programs read it."""
    return _utc(number * 3600).strftime("%Y-%m-%dT%H:00Z")


def _written(by: str, group: str | int) -> str | None:
    if isinstance(group, str):
        return group or None
    return hour(group) if by == "hour" else _utc(group * 86400).strftime("%Y-%m-%d")


def _utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _figures(sums: list[float]) -> dict[str, float]:
    return {name: int(value) if name in _WHOLE else round(value, 6) for name, value in zip(SUMS, sums, strict=True)}

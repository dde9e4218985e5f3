"""What was used, in groups (SPEC 5 `usage`)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from lampyr.ledger.records import Origin
from lampyr.ledger.tally import SUMS

BY = ("function", "day", "hour", "provider")
_WHOLE = frozenset(
    {"invocations", "errors", "refused", "cold_starts", "bytes_in", "bytes_out", "tokens_in", "tokens_out"}
)


def report(totals: Mapping[tuple[int, Origin, str], list[float]], by: str) -> dict[str, Any]:
    """`{"groups": [...], "total": {...}}`; days and hours are those of UTC.

    The provider of what called none is null.
    """
    groups: dict[str | None, list[float]] = {}
    for (hour, origin, provider), sums in totals.items():
        _add(groups.setdefault(_group(by, hour, origin, provider), [0.0] * len(SUMS)), sums)
    total = [0.0] * len(SUMS)
    for sums in groups.values():
        _add(total, sums)
    ordered = sorted(groups.items(), key=lambda item: item[0] or "")
    return {"groups": [{by: name, **_figures(sums)} for name, sums in ordered], "total": _figures(total)}


def _group(by: str, hour: int, origin: Origin, provider: str) -> str | None:
    if by == "function":
        return origin.function
    if by == "provider":
        return provider or None
    when = datetime.datetime.fromtimestamp(hour * 3600, datetime.UTC)
    return when.strftime("%Y-%m-%d" if by == "day" else "%Y-%m-%dT%H:00Z")


def _add(total: list[float], sums: list[float]) -> None:
    for number, value in enumerate(sums):
        total[number] += value


def _figures(sums: list[float]) -> dict[str, float]:
    return {name: int(value) if name in _WHOLE else round(value, 6) for name, value in zip(SUMS, sums, strict=True)}

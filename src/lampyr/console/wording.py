"""How figures are written for people: few digits, one unit, and a dash for what was not measured."""

from __future__ import annotations

import time
from datetime import UTC, datetime

NOTHING = "–"


def ms(value: float | None) -> tuple[str, str]:
    """A duration as number and unit."""
    if value is None:
        return NOTHING, ""
    if value < 1000:
        return _short(value), "ms"
    return (_short(value / 1000), "s") if value < 120_000 else (_short(value / 60_000), "min")


def duration(value: float | None) -> str:
    """A duration in one piece."""
    number, unit = ms(value)
    return f"{number} {unit}" if unit else number


def count(value: float | None) -> str:
    """A number of things: exact up to 10,000."""
    if value is None:
        return NOTHING
    if value < 10_000:
        return f"{int(value):,}"
    for limit, by, suffix in ((1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if value < limit:
            return f"{_short(value / by)} {suffix}"
    return f"{_short(value / 1e9)} G"


def usd(value: float | None) -> str:
    """Dollars; of small amounts the first two digits that say something."""
    if not value:
        return "$0" if value == 0 else NOTHING
    return f"${value:,.2f}" if value >= 1 else f"${value:.2g}" if value >= 1e-4 else "< $0.0001"


def size(value: float | None) -> str:
    """Bytes."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{_short(value) if unit != 'B' else int(value)} {unit}"
        value /= 1000
    raise AssertionError


def percent(part: float, whole: float) -> str:
    """How much of it."""
    if not whole:
        return NOTHING
    value = 100 * part / whole
    return "0 %" if not value else "< 0.1 %" if value < 0.1 else f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def clock(ms_since_1970: float) -> str:
    """The time of day in this machine's time zone, with the date where it is not today's."""
    when = datetime.fromtimestamp(ms_since_1970 / 1000).astimezone()
    text = f"{when:%H:%M:%S}"
    return text if when.date() == datetime.now().astimezone().date() else f"{when:%d %b} {text}"


def iso(ms_since_1970: float) -> str:
    """For machines."""
    return datetime.fromtimestamp(ms_since_1970 / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(ms_since_1970: float) -> str:
    """How long since."""
    seconds = max(time.time() - ms_since_1970 / 1000, 0)
    for limit, by, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / by:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def number_of(value: float, one: str, more: str = "") -> str:
    """`3 instances`, `1 instance`, `no instances`."""
    many = more or f"{one}s"
    return f"no {many}" if not value else f"1 {one}" if value == 1 else f"{count(value)} {many}"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"

"""When the periods of budgets begin and end, and how far one is used (no I/O, time is a parameter)."""

from __future__ import annotations

import datetime

# What is said aloud when so much of a budget is used.
MARKS = (0.5, 0.8, 1.0)


def window(period: str, now_s: float) -> tuple[int, int]:
    """Beginning and end, in seconds since 1970, of the hour, day or month of UTC that `now_s` is in."""
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        begin, end = now, now + datetime.timedelta(hours=1)
    elif period == "day":
        begin = now.replace(hour=0)
        end = begin + datetime.timedelta(days=1)
    else:
        begin = now.replace(day=1, hour=0)
        end = (begin + datetime.timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp())


def spent(unit: str, used: float, amount: float) -> bool:
    """Whether nothing of `amount` is left. Invocations are counted one by one and before; the rest when it is known."""
    return used + 1 > amount if unit == "invocations" else used >= amount


def marks(said: float, used: float, amount: float) -> tuple[float, ...]:
    """Those of MARKS that are reached and beyond what was said already, lowest first."""
    return tuple(mark for mark in MARKS if said < mark and used >= mark * amount)

"""When the periods of budgets begin and end, and what is still left in one (no I/O, time is a parameter)."""

from __future__ import annotations

import datetime


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

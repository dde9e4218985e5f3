"""From when on: a moment as people write it (no clock: now is a parameter)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SINCE = 'a time ago, such as 90s, 10m, 24h, 7d or 2w, or a date, such as 2026-11-26 or "2026-11-26 13:00:05" (UTC)'
_AGO = re.compile(r"(\d{1,9})([smhdw])")
_LAST_S = datetime.max.replace(tzinfo=UTC).timestamp()
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str, now_s: float) -> float:
    """Seconds since 1970 (see SINCE). Raises ValueError."""
    if found := _AGO.fullmatch(text):
        return max(now_s - int(found[1]) * _SECONDS[found[2]], 0.0)
    when = datetime.fromisoformat(text)
    found_s = (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp()
    if found_s > _LAST_S:  # where its own time zone is the last one, a moment of the year 9999 is in the year 10000
        raise ValueError(text)
    return max(found_s, 0.0)

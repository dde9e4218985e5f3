"""From when on: a moment as people write it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SINCE = 'a time ago, such as 90s, 10m, 24h, 7d or 2w, or a date, such as 2026-11-26 or "2026-11-26 13:00:05" (UTC)'
_AGO = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str, now_s: float) -> float:
    """Seconds since 1970 (see SINCE). Raises ValueError, OverflowError."""
    if found := _AGO.fullmatch(text):
        return max(now_s - int(found[1]) * _SECONDS[found[2]], 0.0)
    when = datetime.fromisoformat(text)
    return max((when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp(), 0.0)

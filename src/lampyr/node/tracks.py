"""How many instances each function has had since this gateway began: each change, and the most there ever were."""

from __future__ import annotations

import time
from collections import deque

# A busy day of a function; of what is older only the peak is known.
MAX_CHANGES = 2000


class Track:
    """One function's. `changes` are times (s since 1970) and how many there were from then on."""

    def __init__(self) -> None:
        self.changes: deque[tuple[float, int]] = deque(maxlen=MAX_CHANGES)
        self.count = self.peak = 0

    def change(self, by: int) -> None:
        """One more, or one fewer."""
        self.count += by
        self.peak = max(self.peak, self.count)
        self.changes.append((round(time.time(), 3), self.count))


class Tracks(dict[str, Track]):
    """By route: deployments follow one another in one track."""

    def __missing__(self, route: str) -> Track:
        self[route] = track = Track()
        return track

"""What the system lacks for one more instance of a function: when it is tried again, and how often that is said."""

from __future__ import annotations

from math import inf
from time import monotonic

from lampyr.node.snapshots import MAKE_ROOM, Base

PAUSE_S = 1.0
TOLD_S = 10.0
# What was parked has ended by then.
ROOM_AFTER_S = 0.02


class Scarcity:
    """Nothing is started before `until_s`; `lasts` says whether room is not just being made."""

    __slots__ = ("_base", "_route", "_told_s", "lasts", "until_s")

    def __init__(self, base: Base, route: str) -> None:
        self._base = base
        self._route = route
        self._told_s = -inf
        self.until_s = 0.0
        self.lasts = False

    def met(self, lacked: str, hint: str = MAKE_ROOM, *, here: bool) -> None:
        """The system has refused something: `here`, in the gateway, or to the function's snapshot.

        What is refused here is everybody's: where processes are parked, they go first. A snapshot may have met a limit
        of its own, or not tell the truth, and takes nothing from anybody.
        """
        now_s = monotonic()
        self.lasts = not (here and self._base.end_parked())
        self.until_s = now_s + (PAUSE_S if self.lasts else ROOM_AFTER_S)
        if self.lasts and now_s - self._told_s > TOLD_S:
            self._told_s = now_s
            self._base.tell(f"error: no instance can be started: {lacked}\nhint: {hint}", self._route)

"""What the system lacks for one more instance of a function: when it is tried again, and how often that is said."""

from __future__ import annotations

from math import inf
from time import monotonic

from lampyr.node.snapshots import MAKE_ROOM, Base

PAUSE_S = 1.0
TOLD_S = 10.0
# What was parked has ended by then, or something of what an ended instance has left behind.
ROOM_AFTER_S = 0.02


class Scarcity:
    """Nothing is started before `until_s`; `lasts` says whether room is not just being made."""

    __slots__ = ("_base", "_met_s", "_route", "_since_s", "_told_s", "lasts", "until_s")

    def __init__(self, base: Base, route: str) -> None:
        self._base = base
        self._route = route
        self._told_s = -inf
        self._since_s = self._met_s = -inf  # when the snapshot was refused something: first in a row, and last
        self.until_s = 0.0
        self.lasts = False

    def met(self, lacked: str, hint: str = MAKE_ROOM, *, here: bool) -> None:
        """The system has refused something: `here`, in the gateway, or to the function's snapshot.

        What is refused here is everybody's: where processes are parked, they go first. A snapshot may have met a limit
        of its own, or not tell the truth, and takes nothing from anybody; what it has met lasts when it is met for a
        while, as what a fork bomb has left is still being cleared away when the next call comes.
        """
        now_s = monotonic()
        self.lasts = not self._base.end_parked() if here else self._met_for_a_while(now_s)
        self.until_s = now_s + (PAUSE_S if self.lasts else ROOM_AFTER_S)
        if self.lasts and now_s - self._told_s > TOLD_S:
            self._told_s = now_s
            self._base.tell(f"error: no instance can be started: {lacked}\nhint: {hint}", self._route)

    def _met_for_a_while(self, now_s: float) -> bool:
        if now_s - self._met_s > 2 * PAUSE_S:
            self._since_s = now_s
        self._met_s = now_s
        return now_s - self._since_s >= PAUSE_S

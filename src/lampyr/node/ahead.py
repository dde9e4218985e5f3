"""Requests that wait in the socket of an instance that is about to be free, because its function answers quickly."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.core.pace import MOST_AHEAD, PATIENCE_S, Pace

if TYPE_CHECKING:
    from lampyr.node.caller import Caller
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool


class Ahead:
    """Of one pool. `pace` says whether its function is quick; `latest` is the instance that was given a call last."""

    __slots__ = ("_impatient", "_pool", "latest", "pace")

    def __init__(self, pool: Pool) -> None:
        self.pace = Pace()
        self.latest: Instance | None = None
        self._pool = pool
        self._impatient: asyncio.TimerHandle | None = None

    def take(self, caller: Caller) -> bool:
        """Let `caller` wait in the latest instance, where that is quicker than waking another process."""
        instance = self.latest
        if (
            instance is None
            or not instance.takes_more
            or not 0 < len(instance.running) < MOST_AHEAD
            or instance.state != "busy"
            or instance.due
            or not caller.brief
            or self._pool.births.talks
        ):
            return False
        if self._impatient is None:
            self._impatient = self._pool.loop.call_later(PATIENCE_S, self._check_progress)
        caller.begin(instance)
        return True

    def _check_progress(self) -> None:
        """Take back what waits behind a call that blocks its process."""
        self._impatient = None
        now = monotonic()
        followed = [instance for instance in self._pool.instances.values() if len(instance.running) > 1]
        for instance in followed:
            # On a machine with too much to do even a quick handler takes its time, and so would every other instance.
            if now - instance.since_s >= PATIENCE_S and not instance.meter.starves(PATIENCE_S / 4):
                self.returned(instance, instance.take_back())
        if followed:
            self._impatient = self._pool.loop.call_later(PATIENCE_S, self._check_progress)

    def returned(self, instance: Instance, callers: list[Caller]) -> None:
        """These calls waited behind one that is not quick: they get other instances."""
        instance.takes_more = False
        self.pace.wrong()
        for caller in callers:
            caller.returned()

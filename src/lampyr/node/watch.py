"""A look, once a second, at the instances of one function that have work: do their loops turn, how worn are they.

A function that nobody calls costs nothing: the look ends with the last request, and begins with the next one.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from lampyr.core import wear
from lampyr.runtime import wire

if TYPE_CHECKING:
    from lampyr.node.instance import Instance
    from lampyr.node.pool import Pool

LOOK_S = 1.0
# A loop that has not turned since the last look gets no more requests until it does: they would wait for its handler.
# One that does not turn for so long holds up all requests of its instance: its handler is named in the log...
NAMED_AFTER_S = 5.0
# ...and then another instance takes its place.
REPLACED_AFTER_S = 15.0
# Why an instance was ended, where its callers are told.
BLOCKED = f"its event loop was blocked for {REPLACED_AFTER_S:g} s"
CURE = "await what waits, and give work that takes long to asyncio.to_thread or to a handler without async"


class Watch:
    """Asks the loops of edge functions for a sign of life, and has instances recycled."""

    __slots__ = ("_edge", "_looked_s", "_memory_bytes", "_pool", "on")

    def __init__(self, pool: Pool) -> None:
        settings = pool.function.settings
        self._pool = pool
        self._edge = settings.runtime == "edge"
        self._memory_bytes = settings.memory * wear.MIB
        self._looked_s = 0.0
        self.on = False

    def begin(self) -> None:
        """There is work."""
        self.on = True
        self._looked_s = monotonic()
        self._pool.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        now = monotonic()
        # Who was stopped or starved itself has not read the answers yet, and nobody is to be blamed for that.
        punctual = now - self._looked_s < 2 * LOOK_S
        self._looked_s = now
        self.on = False
        for instance in list(self._pool.instances.values()):
            if instance.running:
                self.on = True
                instance.meter.note()
                if self._edge:
                    self._ask(instance, now, punctual)
            if not instance.worn and (instance.running or instance.weighed != instance.served):
                self._mind_wear(instance)
        if self.on:
            self._pool.loop.call_later(LOOK_S, self._look)

    # --- loops

    def _ask(self, instance: Instance, now: float, punctual: bool) -> None:
        if not instance.asked_s:
            instance.send(wire.frame(0, wire.PING))
        if not instance.asked_s or not punctual:
            instance.asked_s = now
            return
        silent_s = now - instance.asked_s
        if not instance.silent and not instance.meter.starves(LOOK_S / 4):
            instance.silent = True
            self._pool.shun(instance)
        if silent_s >= REPLACED_AFTER_S:
            self._pool.tell(f"warning: an instance is replaced: {BLOCKED}", instance.only_id())
            instance.kill(BLOCKED)
        elif silent_s >= NAMED_AFTER_S and not instance.blocked:
            self._pool.tell(
                f"warning: an event loop has been blocked for {NAMED_AFTER_S:g} s by what the next lines show; {CURE}",
                instance.only_id(),
            )
            instance.blocked = True
            instance.print_stack()

    def answered(self, instance: Instance) -> None:
        """The loop of `instance` turns."""
        if instance.blocked:
            silent_s = monotonic() - instance.asked_s
            self._pool.tell(f"the event loop that was blocked turns again, after {silent_s:.0f} s", instance.only_id())
            instance.blocked = False
        instance.asked_s = 0.0
        if instance.silent:
            instance.silent = False
            self._pool.trust(instance)

    # --- wear

    def _mind_wear(self, instance: Instance) -> None:
        """What one request at a time needs for the moment does not count: its instance is weighed when it is over.

        So is one that nobody could follow before its requests, which may be endless streams, have ended.
        """
        may_be_followed = self._edge and len(self._pool.instances) < self._pool.max_instances
        if may_be_followed or not instance.running:
            self.weigh(instance)
            if instance.worn:
                self._pool.recycle(instance, instance.worn)
        else:
            instance.due = True

    def weigh(self, instance: Instance) -> None:
        """See how worn it is."""
        instance.due = False
        instance.weighed = instance.served
        used_bytes = self._pool.snapshot.used_bytes(instance, int(wear.FULL * self._memory_bytes))
        instance.first_bytes = instance.first_bytes or used_bytes
        instance.worn = wear.worn(instance.served, instance.first_bytes, used_bytes, self._memory_bytes)
        if instance.worn:
            self._pool.tell(f"an instance is followed by another one: {instance.worn}")

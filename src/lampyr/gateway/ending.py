"""How a call is ended whose handler must stop: cancelled first, killed when that does not help."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lampyr.runtime import wire

if TYPE_CHECKING:
    from lampyr.gateway.call import Call
    from lampyr.node.instance import Instance

# What a cancelled handler may take: its `finally` runs, then its process is ended.
DEADLINE_GRACE_S = 0.05
LEFT_GRACE_S = 1.0
# A handler that is still there after this part of the grace does not listen; its stack is asked for from outside.
STACK_AFTER_S = 0.02
STACK_LATEST_S = 0.05
# So often it gets as much longer, as long as no core was free for it since: half a second in all.
STARVED_MOST = 10


class Ending:
    """Of one call in `instance`, from the moment it is begun. `deadline`: its time is up; else its client has left."""

    __slots__ = ("_call", "_deadline", "_instance", "_kill_timer", "_late", "_loop", "_stack", "_stream", "_used_ns")

    def __init__(
        self, call: Call, instance: Instance, stream: int, loop: asyncio.AbstractEventLoop, *, deadline: bool
    ) -> None:
        self._call = call
        self._instance = instance
        self._stream = stream
        self._loop = loop
        self._deadline = deadline
        self._stack: asyncio.TimerHandle | None = None  # when it is to be asked for
        self._late = 0  # how often it has been given a little longer
        instance.send(wire.frame(stream, wire.CANCEL, b"deadline" if deadline else b"client"))
        self._used_ns = instance.meter.clock_ns()
        if deadline:
            instance.doubt()
            instance.listen()
            self._stack = loop.call_later(STACK_AFTER_S, self._ask_stack)
        self._kill_timer = loop.call_later(DEADLINE_GRACE_S if deadline else LEFT_GRACE_S, self._kill)

    def _ask_stack(self) -> None:
        """Not while the process waits for a core: it has not read the CANCEL, and would say the same twice."""
        if self._starves():
            self._stack = self._loop.call_later(STACK_AFTER_S / 2, self._ask_stack)
        else:
            self._stack = None
            self._instance.print_stack()

    def _kill(self) -> None:
        """The handler did not listen. Where others run in the same process they may finish first."""
        if self._deadline and self._may_be_late() and not self._instance.has_spoken():
            # On a machine so busy that it has not come to its stack, it gets a little longer; the client has its 504.
            self._late += 1
            if self._stack is not None:
                self._stack.cancel()
                self._stack = None
                self._instance.print_stack()
            self._kill_timer = self._loop.call_later(STACK_LATEST_S, self._kill)
            return
        self._call.close_row()  # the clock of a process that has ended cannot be read
        why = "it did not stop at its deadline" if self._deadline else "it did not stop when its client left"
        self._instance.give_up(self._stream, why)

    def _may_be_late(self) -> bool:
        return not self._late or (self._late < STARVED_MOST and self._starves())

    def _starves(self) -> bool:
        """Whether it has had next to nothing of a core since it was told to stop."""
        return self._instance.meter.starves(STACK_AFTER_S / 4, self._used_ns)

    def over(self) -> None:
        """It has stopped."""
        self._kill_timer.cancel()
        if self._deadline:
            self._instance.believe()
        if self._stack is not None:
            self._stack.cancel()

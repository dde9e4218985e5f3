"""An instance's life as a table: which event leads from which state to which (no I/O, no clock)."""

from __future__ import annotations

from typing import Literal

State = Literal["starting", "parked", "idle", "busy", "retiring", "ended"]
Event = Literal["park", "wake", "hello", "lease", "free", "retire", "exit"]

# Everything that is not in the table cannot happen; meeting it is our own bug and must be loud.
LIFE: dict[tuple[State, Event], State] = {
    ("starting", "hello"): "idle",  # it said that it is ready for requests
    ("starting", "retire"): "retiring",  # a new deployment came, or nobody waits any more
    ("starting", "exit"): "ended",  # it failed while starting
    ("starting", "park"): "parked",  # it was forked ahead, and waits to be wanted
    ("parked", "wake"): "starting",  # the rest of its start, often nothing, is left
    ("parked", "exit"): "ended",
    ("idle", "lease"): "busy",
    ("idle", "retire"): "retiring",  # idle for too long, or a new deployment came
    ("idle", "exit"): "ended",
    ("busy", "lease"): "busy",  # one more of several at once
    ("busy", "free"): "idle",  # its last invocation has ended
    ("busy", "retire"): "retiring",  # it finishes what runs and takes nothing more
    ("busy", "exit"): "ended",  # it crashed or was killed
    ("retiring", "hello"): "retiring",
    ("retiring", "free"): "retiring",
    ("retiring", "retire"): "retiring",
    ("retiring", "exit"): "ended",
}

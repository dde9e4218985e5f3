"""The event loop of instances: asyncio's own, with handles and turns that are compiled.

Not compiled, so that libraries that patch loops can.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from lampyr.runtime.turns import Turns


class Loop(Turns, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """What is out of the ordinary (debug mode, a closed loop) goes to asyncio; its handles and ours may be mixed."""

    time = staticmethod(monotonic)  # the same as asyncio's, without a frame: three times a timer

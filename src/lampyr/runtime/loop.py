"""The event loop of instances: asyncio's own, with handles and turns that are compiled.

Not compiled, so that libraries that patch loops can.
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import Any, cast

from lampyr.runtime.turns import Turns


class Loop(Turns, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """What is out of the ordinary (debug mode, a closed loop) goes to asyncio; its handles and ours may be mixed."""

    time = staticmethod(monotonic)  # the same as asyncio's, without a frame: three times a timer


_RUN_ONCE = vars(asyncio.BaseEventLoop)["_run_once"]


def heed_patches() -> None:
    """Let be what an import has made of asyncio, where it did not know of this loop."""
    patched: Any = asyncio.SelectorEventLoop
    if patched._run_once is not _RUN_ONCE:  # nest_asyncio
        cast("Any", Loop)._run_once = patched._run_once
    if sys.version_info < (3, 14):
        policy = asyncio.get_event_loop_policy()
        if type(policy).get_child_watcher is asyncio.AbstractEventLoopPolicy.get_child_watcher:
            # That of uvloop has nobody who waits for the children of other loops than its own.
            cast("Any", policy).get_child_watcher = asyncio.DefaultEventLoopPolicy().get_child_watcher

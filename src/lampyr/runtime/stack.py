"""Where a handler stands: the frames of a suspended coroutine, which no thread's stack shows, or of its thread."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from types import FrameType
from typing import Any

# Of a failure: as bytes it fits in one frame (runtime/wire.py), and in a log that somebody wants to read.
MOST_TOLD_CHARS = 32_000
_OURS = os.path.dirname(__file__) + os.sep


def frames(coroutine: Any) -> list[FrameType]:
    """The frames from `coroutine` inwards to what it awaits, without those of Lampyr itself."""
    found: list[FrameType] = []
    while coroutine is not None and len(found) < 200:
        for kind in ("cr", "ag", "gi"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                found.append(frame)
                awaited = getattr(coroutine, f"{kind}_await", None) if kind != "gi" else coroutine.gi_yieldfrom
                break
        else:
            # The awaitable of `agen.__anext__()` does not say which generator it drives; the collector knows.
            awaited = next((one for one in gc.get_referents(coroutine) if hasattr(one, "ag_frame")), None)
        coroutine = awaited
    return [frame for frame in found if not frame.f_code.co_filename.startswith(_OURS)]


def frames_of_thread(ident: int) -> list[FrameType]:
    """The frames of a thread from what we called in it inwards, without those of Lampyr itself."""
    found: list[FrameType] = []
    frame = sys._current_frames().get(ident)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    found.reverse()
    ours = [one.f_code.co_filename.startswith(_OURS) for one in found]
    begin = ours.index(True) if True in ours else 0
    return [one for one, own in zip(found[begin:], ours[begin:], strict=True) if not own]


def shortened(text: str) -> str:
    """`text` with its middle left out where it is too long to be told: whatever an exception's message holds."""
    left_out = len(text) - MOST_TOLD_CHARS
    half = MOST_TOLD_CHARS // 2
    return text if left_out <= 0 else f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"


def tell(coroutine: Any, thread: int | None) -> None:
    """Write where a handler stands to stderr: its coroutine, and the thread where it runs a call that may block.

    Nothing where the coroutine is running, since then the stack of the whole process has it.
    """
    stack = frames(coroutine) + (frames_of_thread(thread) if thread is not None else [])
    lines = [traceback.FrameSummary(one.f_code.co_filename, one.f_lineno, one.f_code.co_name) for one in stack]
    if lines:
        text = "".join(traceback.format_list(lines))
        print(f"Stack at the deadline (most recent call last):\n{text}", end="", file=sys.stderr)

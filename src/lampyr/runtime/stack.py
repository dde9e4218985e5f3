"""Where a handler stands, and where an error came from: in the frames that the user has written or called.

The frames of a suspended coroutine are on no thread's stack; those of Lampyr, and of what it runs handlers with, say
nothing about a function.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

from lampyr.runtime.hints import cure

# Of a failure: as bytes it fits in one frame (runtime/wire.py), and in a log that somebody wants to read.
MOST_TOLD_CHARS = 32_000
# The gateway sends this signal when a deadline has passed; the answer is a stack on the log pipe (faulthandler).
STACK_SIGNAL = signal.SIGXCPU
OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STDLIB = os.path.dirname(os.__file__)
MACHINERY = (OURS, os.path.join(_STDLIB, "asyncio", ""), os.path.join(_STDLIB, "concurrent", "futures", ""))


def listen() -> None:
    """Answer the signal, even when Python code never runs again."""
    faulthandler.unregister(STACK_SIGNAL)
    faulthandler.register(STACK_SIGNAL, file=2, all_threads=True)


def hush() -> None:
    """Leave the next signal without an answer: it has been given."""
    signal.signal(STACK_SIGNAL, signal.SIG_IGN)


def frames(coroutine: Any) -> list[FrameType]:
    """The frames from `coroutine` inwards to what it awaits, without the machinery."""
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
    return [frame for frame in found if not frame.f_code.co_filename.startswith(MACHINERY)]


def frames_of_thread(ident: int) -> list[FrameType]:
    """The frames of a thread from what we called in it inwards, without the machinery."""
    found: list[FrameType] = []
    frame = sys._current_frames().get(ident)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    found.reverse()
    ours = [one.f_code.co_filename.startswith(OURS) for one in found]
    begin = ours.index(True) if True in ours else 0
    return [one for one in found[begin:] if not one.f_code.co_filename.startswith(MACHINERY)]


def shortened(text: str) -> str:
    """`text` with its middle left out where it is too long to be told: whatever an exception's message holds."""
    if len(text) <= MOST_TOLD_CHARS:
        return text
    # Cut between words: half a secret is not known to be one.
    before, behind = text[: MOST_TOLD_CHARS // 2], text[-MOST_TOLD_CHARS // 2 :]
    before = before[: max(before.rfind(" "), before.rfind("\n")) + 1]
    behind = behind[min((at for at in (behind.find(" "), behind.find("\n")) if at >= 0), default=len(behind)) :]
    left_out = len(text) - len(before) - len(behind)
    return f"{before.rstrip()}\n... {left_out} characters left out ...\n{behind.lstrip()}"


def trace(error: BaseException) -> str:
    """The traceback of `error` as Python prints it, without the machinery; whole where there is nothing else in it."""
    told = traceback.TracebackException.from_exception(error)
    if any(not frame.filename.startswith(MACHINERY) for frame in told.stack):
        _leave_out_machinery(told)
    return shortened("".join(told.format()))


def _leave_out_machinery(told: traceback.TracebackException) -> None:
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(MACHINERY)]
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _leave_out_machinery(other)


def print_trace(error: BaseException) -> None:
    """Write a traceback to stderr, and what to do about it where that is known."""
    hint = cure(error)
    print(trace(error) + (f"hint: {hint}\n" if hint else ""), end="", file=sys.stderr)


def tell(coroutine: Any, thread: int | None) -> bool:
    """Write where a handler stands to stderr: its coroutine, and the thread where it runs a call that may block.

    Nothing, and False, where the coroutine is running, since then the stack of the whole process has it.
    """
    stack = frames(coroutine) + (frames_of_thread(thread) if thread is not None else [])
    lines = [traceback.FrameSummary(one.f_code.co_filename, one.f_lineno, one.f_code.co_name) for one in stack]
    if lines:
        text = "".join(traceback.format_list(lines))
        print(f"Stack at the deadline (most recent call last):\n{text}", end="", file=sys.stderr)
    return bool(lines)

"""How a process ended, in words, and what that mostly means."""

from __future__ import annotations

import signal

_HINTS = {
    "SIGKILL": "something has killed it: the function itself, a person, or the system for want of memory (dmesg)",
    "SIGTERM": "something has sent it SIGTERM, perhaps the function itself",
    "SIGSYS": "it made a system call that is closed to functions",
}
# Of an import that was ended because its time was over.
ENDLESS = "its stack above says where it stood; what takes long or waits for somebody belongs in a handler"
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"})


def told(status: int) -> str:
    """`status` as subprocess has it: an exit code, or a signal's number, negative."""
    return f"exited with status {status}" if status >= 0 else f"was killed by {_name(-status)}"


def hint(status: int) -> str:
    """Where to look for the cause."""
    if status >= 0:
        return "look for sys.exit and os._exit in the function and in what it imports; to give up, raise an exception"
    name = _name(-status)
    if name in _FAULTS:
        return "a crash in compiled code: the stack is in its log; the package in it may have a newer version"
    return _HINTS.get(name, "look for what sends that signal")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

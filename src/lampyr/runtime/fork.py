"""fork(2) without what CPython does around it, where that has nothing to mend.

`os.fork` makes the interpreter's locks anew, and has the standard library do so with its own: another thread may have
held one. A snapshot has one thread, which waits for an order and holds none. So a child saves the first writes to 160
pages, 0.5 ms of 7 until an instance has answered.
"""

from __future__ import annotations

import os
import posix
import sys
import threading
from typing import Any

# How these versions, with their global lock, live through a fork was read in their sources.
KNOWN = sys.platform == "linux" and (3, 11) <= sys.version_info < (3, 14) and "t" not in sys.abiflags
_fork, _register_at_fork = os.fork, os.register_at_fork
# Who has something of its own to mend: packages, and the user's code.
_registered: list[str] = []


def heed_hooks() -> None:
    """Know from now on who calls `os.register_at_fork`."""
    os.register_at_fork = posix.register_at_fork = _heed


def _heed(**hooks: Any) -> None:
    _register_at_fork(**hooks)
    who = sys._getframe(1).f_globals.get("__name__", "")
    # A compiled module has no frame: it seems to be whoever imports it.
    if "importlib" in who or who.partition(".")[0] not in sys.stdlib_module_names:
        _registered.append(who)


def fork() -> int:
    """fork(2): 0 in the child, which is as after `os.fork`. Raises OSError."""
    if not KNOWN or _registered or os.fork is not _fork or not alone():  # gevent has an os.fork of its own
        return os.fork()
    from lampyr.runtime import kernel

    pid = kernel.fork()
    if pid == 0:
        getattr(threading.main_thread(), "_set_native_id", int)()  # nothing else of the interpreter's is another's now
    return pid


def alone() -> bool:
    """Whether this process has one thread: a folder, and so a link more than two, for each (proc_pid_task(5))."""
    try:
        return os.stat("/proc/self/task").st_nlink == 3
    except OSError:
        return False


def shed_threads() -> bool:
    """Whether this process has one thread, once libraries that end theirs before a fork have done so.

    OpenBLAS does (pthread_atfork(3)), and starts them again when it needs them.
    """
    if not alone():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return alone()

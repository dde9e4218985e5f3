"""The table of a process's descriptors, which is as long as it will be before there are threads."""

from __future__ import annotations

import fcntl
import os
import resource

# Each takes 8 bytes. Beyond that the table grows as it would have done.
MOST = 16_384


def make_room() -> None:
    """For processes that everybody waits for, at their start; the table does not get shorter again.

    Once a process has threads, making it longer waits for an RCU grace period (Linux, expand_fdtable in fs/file.c): an
    accept(2) or pipe(2) took 14 to 20 ms, in which nobody was served, at the 65th descriptor, the 257th and so on.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, min(MOST, most) - 1))
    except OSError:  # that one is taken, or the system has no memory for more
        pass

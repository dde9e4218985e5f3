"""What an untrusted process gives up: new privileges, core files, descriptors without end, other people's signals."""

from __future__ import annotations

import os
import resource
import signal
import sys

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

MAX_OPEN_FILES = 4096
# Thread stacks and allocator arenas are mapped but hardly used; without this room 40 threads would count as 320 MB.
DATA_SLACK_BYTES = 1024 * 1024 * 1024


def _prctl(option: int, value: int) -> None:
    import ctypes  # 5 ms, paid once by the base snapshot

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def enter(memory_mib: int) -> None:
    """Enter what an instance inherits from its snapshot, before any of the user's code is imported.

    No privileges can be gained by executing files (prctl(2), PR_SET_NO_NEW_PRIVS), no core file can hold a secret, and
    memory is bounded by RLIMIT_DATA (getrlimit(2)).
    """
    if sys.platform == "linux":
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _prctl(PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _lower(resource.RLIMIT_DATA, memory_mib * 1024 * 1024 + DATA_SLACK_BYTES)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def private_tmp(folder: str) -> None:
    """Make `folder` and let everything that asks for a temporary place find it."""
    os.mkdir(folder, 0o700)
    os.environ["TMPDIR"] = folder
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]

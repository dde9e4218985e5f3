"""What the system says of one process, and how it is told to end: by its pidfd, which never means another one."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def pid_of(pidfd: int) -> int:
    """The number that a process has here, whatever it is called in its own namespace (pidfd_open(2))."""
    try:
        return _told(pidfd)
    except OSError:
        return -1  # not Linux, or there is no descriptor to read it with


def _told(pidfd: int) -> int:
    _, found, text = _read(f"/proc/self/fdinfo/{pidfd}").partition(b"\nPid:")
    return int(text.split(None, 1)[0]) if found else -1


def _read(path: str) -> bytes:
    """One of the system's short files, in a third of the time that `pathlib` takes (6 us)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def is_below(pidfd: int, ancestor: int) -> bool:
    """Whether a process descends from another one, or is over already: then a signal reaches nobody."""
    try:
        pid = _told(pidfd)
        while pid > 1:
            pid = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 2)[1])
            if pid == ancestor:
                return True
    except (OSError, IndexError):
        pass
    return is_over(pidfd)  # asked last: the parent of a process that is just being waited for reads as 0


def is_over(pidfd: int) -> bool:
    """Whether a process has ended and has been waited for."""
    try:
        return _told(pidfd) == -1
    except OSError:
        return False


def memory_is_short() -> bool:
    """Whether less than an eighth of this machine's memory could be had (proc_meminfo(5))."""
    try:
        amounts = {line.split(b":")[0]: int(line.split()[1]) for line in _read("/proc/meminfo").splitlines()}
        return amounts[b"MemAvailable"] < amounts[b"MemTotal"] // 8
    except (OSError, KeyError):
        return False


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or is only waited for by its parent (proc_pid_stat(5), "Z" and "X")."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] in b"ZX"
    except (OSError, IndexError):
        return True


def own_bytes(pidfd: int) -> int:
    """The memory of a process that it shares with no other, 0 where that cannot be known (proc_pid_smaps(5))."""
    try:
        text = Path(f"/proc/{pid_of(pidfd)}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))


def anonymous_bytes(pid: int) -> int:
    """Memory of one process that belongs to no file (proc_pid_statm(5)); 0 where nobody says."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def cpu_ticks(pid: int) -> int:
    """What a process has used of processors, in clock ticks (proc_pid_stat(5)); 0 where nobody says."""
    try:
        behind_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return int(behind_name[11]) + int(behind_name[12])
    except (OSError, IndexError, ValueError):
        return 0


def wants_core(pid: int) -> bool:
    """Whether a process runs or waits for a core, as opposed to waiting for anything else (proc_pid_stat(5))."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return False
    return text.rpartition(b")")[2].split()[:1] == [b"R"]  # behind the name, which may hold anything


def send_signal(pidfd: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal, to nobody where the process has ended already."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        pass


def end(pidfd: int) -> None:
    """End a process, and let go of its pidfd."""
    send_signal(pidfd)
    os.close(pidfd)

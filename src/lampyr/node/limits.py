"""What a function's processes may use of memory, tasks and processor time: control groups, filled by a thread.

    <the server's own group>/lampyr-<pid of the gateway>/<function>/snapshot, <function>/<instance>

A process starts in its snapshot's group, at no cost, and is moved to one of its own a few milliseconds later: moving
waits for the whole machine (an RCU grace period, 6 ms measured), so nobody who serves a request waits for it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

from lampyr.node.groups import Group
from lampyr.node.hierarchy import open_group
from lampyr.node.processes import has_ended, pid_of

# Enough for every thread pool a library makes by the number of processors.
MAX_TASKS = max(256, 4 * (os.cpu_count() or 1))
# A snapshot shares its pages with all instances, and what an instance touches before it has moved counts here.
IMPORT_SLACK_MIB, MOVING_MIB = 1024, 16

# What fork says there.
_NO_TASK = os.strerror(errno.EAGAIN)

# A snapshot that comes back must not meet the group of the one before, which may still be on its way out.
_numbers = count(1)


class Fence:
    """The groups of one function, or of packages that several share (`route` is None).

    Without control groups nothing happens here and nothing is held up.
    """

    def __init__(self, limits: Limits, route: str | None, name: str, memory_mib: int, max_instances: int) -> None:
        self._limits = limits
        self._route = route
        self._name = name
        self._memory_mib = memory_mib
        self._max_instances = max_instances
        self._group: Group | None = None
        self._snapshot: Group | None = None
        self._instances: dict[int, Group] = {}
        self._pid = -1
        self._kills = 0
        self._refused = 0
        self._unforked = 0

    def admit_snapshot(self, pidfd: int, then: Callable[[], None]) -> None:
        """Move the function's snapshot into its group, then go on: it has not run any of the user's code yet."""
        if self._limits.group is None:
            then()
        else:
            self._limits.do(self._take_snapshot, pid_of(pidfd), then=then)

    def _take_snapshot(self, pid: int) -> None:
        assert self._limits.group is not None
        self._group = self._limits.group.within(f"{self._name}.{next(_numbers)}")
        self._snapshot = self._group.within("snapshot")
        with _may_end(pid):
            self._snapshot.hold(memory_mib=self.import_mib, tasks=MAX_TASKS)
            self._snapshot.enter(pid)
        self._pid = pid
        self._kills = self._snapshot.memory_kills()

    @property
    def import_mib(self) -> int:
        """What the snapshot may use until it is ready."""
        return self._memory_mib + IMPORT_SLACK_MIB

    def import_out_of_memory(self) -> bool:
        """Whether the kernel has ended a process of the snapshot for its memory."""
        snapshot = self._snapshot
        return snapshot is not None and snapshot.memory_kills() > self._kills

    def met_at_import(self) -> tuple[str, str] | None:
        """The limit that an import has met, as far as the kernel counts it, and what to do about it."""
        if self.import_out_of_memory():
            text = f"importing it needed more memory than the {self.import_mib} MiB an import may use here"
            return text, f"raise `memory`, or import less: an import may use that and {IMPORT_SLACK_MIB} MiB"
        if self._snapshot is not None and self._snapshot.refused_tasks():
            text = f"importing it needed more than the {MAX_TASKS} processes and threads that it may have"
            return text, "start processes and threads in a handler, and fewer"
        return None

    def met_at_fork(self, lacked: str) -> tuple[str, str] | None:
        """The limit because of which the snapshot `lacked` a process just now, and what to do about it."""
        if _NO_TASK not in lacked:
            return None
        refused = self._snapshot.refused_tasks() if self._snapshot is not None else 0
        if refused == self._unforked:
            return None
        self._unforked = refused
        text = f"the function has reached the limit of {MAX_TASKS} processes and threads beside its instances"
        return text, "let an import start fewer of them, and a handler wait for those that it starts"

    def imported(self) -> None:
        """The snapshot is ready: its children begin in its group."""
        if self._snapshot is not None:
            self._kills = self._snapshot.memory_kills()  # whoever else is ended there is an instance
        if self._limits.group is not None:
            self._limits.do(self._open)

    def _open(self) -> None:
        if self._snapshot is not None:
            memory_mib = self.import_mib + MOVING_MIB * self._max_instances
            self._snapshot.hold(memory_mib=memory_mib, tasks=MAX_TASKS + self._max_instances)

    def admit(self, number: int, pidfd: int) -> None:
        """Move an instance into a group of its own."""
        if self._group is not None:
            self._limits.do(self._take, number, pid_of(pidfd))

    def _take(self, number: int, pid: int) -> None:
        if self._group is None:  # the snapshot has ended meanwhile, and the instance with it
            return
        with _may_end(pid):
            self._instances[number] = group = self._group.within(str(number))
            group.hold(memory_mib=self._memory_mib, tasks=MAX_TASKS)
            group.enter(pid)

    def out_of_memory(self, number: int) -> bool:
        """Whether the kernel has ended a process of this instance for its memory."""
        group = self._instances.get(number)
        if group is not None and group.memory_kills():
            return True
        snapshot = self._snapshot
        if snapshot is None or snapshot.memory_kills() == self._kills:
            return False
        self._kills += 1  # it had not been moved yet; others, that were ended beside it, ask as well
        return True

    def used_bytes(self, number: int, exactly_from: int) -> int | None:
        """Memory of an instance, see `Group.used_bytes`; None where nobody counts it."""
        group = self._instances.get(number)
        return group.used_bytes(exactly_from) if group is not None else None

    def release(self, number: int) -> None:
        """An instance is over: end what it left, say which limit it met."""
        if self._limits.group is not None:
            self._limits.do(self._let_go, number)

    def end(self, number: int) -> None:
        """End all processes of an instance at once: one by one, a fork bomb would take seconds to clear away."""
        if self._group is not None:
            self._limits.do(self._end, number)

    def _end(self, number: int) -> None:
        group = self._instances.get(number)
        if group is not None:
            group.end_all_but(-1)
        if self._snapshot is not None and self._snapshot.refused_tasks() != self._refused:
            self._refused = self._snapshot.refused_tasks()
            self._limits.tell("warning: it has reached the limit of processes and threads of its snapshot", self._route)
            self._snapshot.end_all_but(self._pid)  # a bomb that was quicker than the move

    def _let_go(self, number: int) -> None:
        self._end(number)
        group = self._instances.pop(number, None)
        if group is not None:
            if group.refused_tasks():
                text = f"warning: it has reached the limit of {MAX_TASKS} processes and threads"
                self._limits.tell(text, self._route)
            self._limits.remove(group)

    def close(self) -> None:
        """The snapshot is over, and with it all instances."""
        if self._limits.group is not None:
            self._limits.do(self._remove)

    def _remove(self) -> None:
        group, self._group, self._snapshot = self._group, None, None
        self._instances.clear()  # their groups go with it
        if group is not None:
            self._limits.remove(group)


class Limits(Protocol):
    """Who makes, fills and removes groups, in order."""

    @property
    def group(self) -> Group | None: ...
    def do(self, step: Callable[..., None], *arguments: Any, then: Callable[[], None] | None = None) -> None: ...
    def tell(self, text: str, function: str | None = None) -> None: ...
    def remove(self, group: Group) -> None: ...


def _taken(step: Callable[..., None], arguments: tuple[Any, ...]) -> str:
    """Take a step; what went wrong."""
    try:
        step(*arguments)
    except ProcessLookupError:
        pass  # it has ended in the meantime
    except OSError as error:
        return f"a limit cannot be set: {error}"
    return ""


class AtOnce:
    """For imports that are only tried: no loop turns meanwhile, nobody else waits, and they are over soon.

    `told` hears what goes wrong. The groups are those of this process, and go with `close`.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self.group: Group | None
        self.group, _ = open_group(os.getpid()) if sys.platform == "linux" else (None, {})

    def fence(self, name: str, memory_mib: int) -> Fence:
        """For the import of one function."""
        return Fence(self, None, name, memory_mib, 0)

    def do(self, step: Callable[..., None], *arguments: Any, then: Callable[[], None] | None = None) -> None:
        """Take this step now."""
        if wrong := _taken(step, arguments):
            self.tell(wrong)
        if then is not None:
            then()

    def tell(self, text: str, function: str | None = None) -> None:
        self._told(text)

    def remove(self, group: Group) -> None:
        """Remove a group, which waits for what is in it to end."""
        group.remove()

    def close(self) -> None:
        """Remove all groups."""
        if self.group is not None:
            self.group.remove()


class Beside:
    """The groups of one gateway's functions, on a thread of its own: moving a process takes long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[str, str | None], None]) -> None:
        self._loop = loop
        self._told = told
        self._thread = ThreadPoolExecutor(1, "limits")
        self._left: list[Group] = []
        self.group, self.missing = open_group(os.getppid()) if sys.platform == "linux" else (None, {})

    def do(self, step: Callable[..., None], *arguments: Any, then: Callable[[], None] | None = None) -> None:
        self._thread.submit(self._do, step, arguments, then)

    def _do(self, step: Callable[..., None], arguments: tuple[Any, ...], then: Callable[[], None] | None) -> None:
        if wrong := _taken(step, arguments):
            self.tell(f"warning: {wrong}")
        if then is not None:
            self._loop.call_soon_threadsafe(then)

    def tell(self, text: str, function: str | None = None) -> None:
        """Say something in the log, about a function perhaps, from any thread."""
        self._loop.call_soon_threadsafe(self._told, text, function)

    def remove(self, group: Group) -> None:
        """Remove a group now, or later if a process in it takes its time to die."""
        self._left = [one for one in [*self._left, group] if not one.remove()]


@contextmanager
def _may_end(pid: int) -> Iterator[None]:
    """A process that ends while it is admitted is no failure, whatever the system calls it: ESRCH where it is gone,
    EINVAL on its way out, ENOENT where its snapshot's groups have been removed.
    """
    try:
        yield
    except OSError as error:
        if not has_ended(pid):
            raise
        raise ProcessLookupError from error

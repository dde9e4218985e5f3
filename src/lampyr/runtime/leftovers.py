"""What an import leaves behind that instances cannot share or do not have: threads, sockets, open files, loops."""

from __future__ import annotations

import _thread
import asyncio
import io
import os
import random
import re
import socket
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

from lampyr.runtime.reseed import instances_of

_start_new_thread = _thread.start_new_thread

Found = dict[str, Any]  # {"file", "line", "message", "hint"}; see types.Problem

# Libraries that end their threads before a fork and start them again after it (pthread_atfork(3)).
FORK_SAFE = re.compile(r"openblas|libgomp|libiomp|libmkl")
RESTORE = "in a function decorated with @after_restore"


class Leftovers:
    """Looks on while a route file is imported, and says afterwards what is left, with file and line where known.

    Meanwhile three methods of the standard library note who calls them.
    """

    def __init__(self, root: str, file: str) -> None:
        self._root = root
        self._file = file
        self._before = _descriptors()
        self._children = set(children())
        self._places: weakref.WeakKeyDictionary[Any, tuple[str, int | None]] = weakref.WeakKeyDictionary()
        self._seeded: dict[int, tuple[weakref.ref[random.Random], tuple[str, int | None]]] = {}
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Leftovers:
        self._look_at(threading.Thread, "start", self._note)
        self._look_at(socket.socket, "__init__", self._note)
        self._look_at(random.Random, "seed", self._note_seed)
        return self

    def __exit__(self, *exception: object) -> None:
        for undo in self._undo:
            undo()

    def _look_at(self, owner: type, name: str, note: Callable[..., None]) -> None:
        original = vars(owner)[name]

        def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
            note(self, *arguments, **keywords)
            return original(self, *arguments, **keywords)

        def undo() -> None:
            if vars(owner)[name] is method:  # else somebody has wrapped it meanwhile, and stays
                setattr(owner, name, original)

        method.__name__, method.__qualname__, method.__doc__ = name, original.__qualname__, original.__doc__
        setattr(owner, name, method)
        self._undo.append(undo)

    def _note(self, one: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            self._places[one] = self._place()
        except TypeError:  # an object that cannot be a key
            pass

    def _note_seed(self, one: random.Random, a: object = None, *arguments: Any, **keywords: Any) -> None:
        if a is None:
            self._seeded.pop(id(one), None)
        else:
            self._seeded[id(one)] = (weakref.ref(one), self._place())

    def _place(self) -> tuple[str, int | None]:
        """The line of the project that is being run; in a library, the line that called or imported it."""
        frame: FrameType | None = sys._getframe(3)
        while frame is not None:
            if self._is_ours(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        return self._file, None

    def _is_ours(self, file: str) -> bool:
        return file.startswith(self._root + "/") and "/site-packages/" not in file

    # --- afterwards

    def seeded(self) -> list[random.Random]:
        """The generators of `random` that were given a seed and still live."""
        return [one for ref, _ in self._seeded.values() if (one := ref()) is not None]

    def found(self, kept: list[object]) -> list[Found]:
        """What is left. `kept` are the generators that go on from a seed somebody chose (see reseed.find)."""
        loops = [loop for loop in instances_of(asyncio.AbstractEventLoop) if not loop.is_closed()]
        return [
            *self._threads(),
            *self._patched_threads(),
            *(self._processes()),
            *(self._loop(loop) for loop in loops),
            *self._open(loops),
            *(self._generator(one) for one in kept),
        ]

    def _found(self, place: tuple[str, int | None], message: str, hint: str) -> Found:
        return {"file": place[0], "line": place[1], "message": message, "hint": hint}

    def _threads(self) -> Iterator[Found]:
        alive = [one for one in threading.enumerate() if one is not threading.current_thread()]
        for thread in alive:
            message = f"the import starts a thread ({_what_runs(thread)}); instances do not have it"
            yield self._found(self._place_of(thread), message, f"start it {RESTORE}")
        native = len(os.listdir("/proc/self/task")) - len(alive) - 1
        if native > 0 and not FORK_SAFE.search(_mapped()):
            message = f"the import starts {native} threads of a library outside Python; instances do not have them"
            yield self._found((self._file, None), message, f"do what starts them {RESTORE}")

    def _patched_threads(self) -> Iterator[Found]:
        if _thread.start_new_thread is not _start_new_thread:
            who = _thread.start_new_thread.__module__.partition(".")[0]
            message = f"the import has {who} patch threads; handlers without async, which run in one, may wait for ever"
            yield self._found((self._file, None), message, "patch all else (thread=False), or use async handlers")

    def _processes(self) -> Iterator[Found]:
        for pid in children():
            if pid not in self._children:
                message = f"the import starts a process ({_command(pid)}); it ends with the first instance that ends"
                yield self._found(self._name_of(partial(_is_process, pid)), message, f"start it {RESTORE}")

    def _loop(self, loop: Any) -> Found:
        place = self._place_of(getattr(loop, "_ssock", loop))
        message = "the import makes an event loop; instances run one of their own"
        return self._found(
            place, message, f"make what needs a loop in an async handler, or {RESTORE}; or close the loop"
        )

    def _open(self, loops: list[Any]) -> Iterator[Found]:
        of_loops = {fd for loop in loops for fd in _descriptors_of(loop)}
        sockets = {one.fileno(): place for one, place in list(self._places.items()) if isinstance(one, socket.socket)}
        for fd in sorted(_descriptors() - self._before - of_loops):
            what = _describe(fd)
            if what is None or (loops and "eventpoll" in what):
                continue
            place = sockets.get(fd) or self._name_of(partial(_is_at, fd))
            yield self._found(place, f"the import opens {what}; all instances share it", f"open it {RESTORE}")

    def _generator(self, one: Any) -> Found:
        noted = self._seeded.get(id(one))
        place = noted[1] if noted else self._name_of(lambda value: value is one or _draws_from(value, one))
        message = f"the import seeds a generator ({type(one).__name__}); it goes on from there in every instance alike"
        return self._found(place, message, f"leave out the seed, or seed it {RESTORE}")

    def _place_of(self, one: object) -> tuple[str, int | None]:
        try:
            return self._places.get(one) or (self._file, None)
        except TypeError:  # no weak reference to it
            return self._file, None

    def _name_of(self, is_it: Callable[[Any], bool]) -> tuple[str, int | None]:
        """Where a module of the project first assigns the name under which it holds a value."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and self._is_ours(file):
                for name, value in list(vars(module).items()):
                    if is_it(value):
                        return file, _line_of(name, file)
        return self._file, None


def unlock_writers() -> list[Callable[[], object]]:
    """What undoes, after a fork, the locks that threads may have held on open files, stdout among them.

    Python lets a thread write without the GIL, but with such a lock; its copy would never be let go (bpo-6721).
    """
    ours = [stream.buffer for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]  # older than the import
    writers = [*instances_of(io.BufferedWriter), *(one for one in ours if isinstance(one, io.BufferedWriter))]
    for writer in writers:
        if not writer.closed:
            writer.flush()
    return [partial(writer.__init__, writer.raw) for writer in writers if not writer.closed]


def children() -> list[int]:
    """The processes that this one has started, by any of its threads."""
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return f"process {pid}"


def _is_process(pid: int, value: Any) -> bool:
    return type(value).__name__ == "Popen" and getattr(value, "pid", None) == pid


def _mapped() -> str:
    with open("/proc/self/maps") as file:
        return file.read()


def _what_runs(thread: threading.Thread) -> str:
    """The thread's name, and where the code that it runs stands."""
    target = getattr(thread, "_target", None)
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    if isinstance(code, CodeType):
        return f"{thread.name}, which runs {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    return thread.name


def _descriptors() -> set[int]:
    listed = os.listdir("/proc/self/fd")
    return {int(name) for name in listed if os.path.islink(f"/proc/self/fd/{name}")}  # not the listing's own


def _descriptors_of(loop: Any) -> Iterator[int]:
    for name in ("_ssock", "_csock", "_selector"):
        end = getattr(loop, name, None)
        if end is not None and hasattr(end, "fileno"):
            yield end.fileno()


def _describe(fd: int) -> str | None:
    """What is open at `fd`; None for what instances may share: devices, and files that are only appended to."""
    target, mode = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _describe_socket(fd)
    if stat.S_ISREG(mode):
        return None if _appends(fd) else f"the file {target}"
    if stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
        return None
    return "a pipe" if stat.S_ISFIFO(mode) else target.replace("anon_inode:", "an ")


def _appends(fd: int) -> bool:
    with open(f"/proc/self/fdinfo/{fd}") as file:
        flags = re.search(r"^flags:\s*([0-7]+)$", file.read(), re.MULTILINE)
    return flags is not None and bool(int(flags[1], 8) & os.O_APPEND)


def _describe_socket(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            peer = sock.getpeername()
        except OSError:
            return "a socket"
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"a connection to {peer[0]}:{peer[1]}"
    return "a socket"


def _is_at(fd: int, value: Any) -> bool:
    """Whether a file object or a socket is the one at `fd`. Nothing else is asked: it might do something."""
    if not isinstance(value, (io.IOBase, socket.socket)):
        return False
    try:
        return value.fileno() == fd
    except (OSError, ValueError):
        return False


def _draws_from(value: Any, bits: object) -> bool:
    """Whether `value` is a Generator or RandomState of numpy over this bit generator."""
    return type(value).__module__.startswith("numpy.random") and getattr(value, "_bit_generator", None) is bits


def _line_of(name: str, file: str) -> int | None:
    assigned = re.compile(rf"\s*(?:{re.escape(name)}\s*(?::[^=]+)?=(?!=)|.*\bas {re.escape(name)}\b)")
    with open(file, errors="replace") as source:
        return next((number for number, line in enumerate(source, 1) if assigned.match(line)), None)

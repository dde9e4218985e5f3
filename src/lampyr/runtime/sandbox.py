"""What an untrusted process gives up, and with which of the system's means: found out once by the base snapshot.

As root every function has a user id and a room of its own (see room); an ordinary user has the room where user
namespaces are allowed; Landlock, seccomp and resource limits come on top of either, or are what there is.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

LINUX = sys.platform == "linux"
MAX_OPEN_FILES = 4096
# Processes and threads of all of a function's instances (of all functions, for an ordinary user); where there are
# control groups, each may have fewer.
MAX_TASKS = 4096
# Thread stacks and allocator arenas are mapped but hardly used; without this room 40 threads would count as 320 MB.
DATA_SLACK_BYTES = 1024 * 1024 * 1024
MIB = 1024 * 1024
# Of a process's own part of its name: 15 in all, "lampyr:" among them.
NAME_BYTES = 8
# What packages leave behind at their import.
SHARED_TMP_BYTES = 64 * MIB
HATCH_BACKLOG = 1024


@dataclass
class Means:
    """What this machine lets us use. `missing` says of each of the others why not."""

    room: bool = False
    network: bool = False
    users: bool = False
    user_namespace: bool = False
    no_new_privileges: bool = False
    landlock: int = 0
    seccomp: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    handshake: tuple[int, int] | None = None

    def tried(self, name: str, attempt: Callable[[], object]) -> bool:
        """Whether `attempt` worked; if not, `missing` says why."""
        try:
            attempt()
        except (OSError, KeyError, ValueError, StopIteration) as error:
            self.missing[name] = str(error) or type(error).__name__
            return False
        return True

    def as_message(self) -> dict[str, Any]:
        return asdict(self)


def close_memory() -> None:
    """No core dump, and no other process of this user reads this one's memory or descriptors (prctl(2))."""
    if LINUX:
        from lampyr.runtime import kernel

        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def name_process(what: str) -> None:
    """Have `top` say it of this process and those it forks; of a long route its end, as beginnings are alike."""
    if LINUX:
        from lampyr.runtime import kernel

        end = what.encode(errors="ignore")[-NAME_BYTES:]
        kernel.set_name(b"lampyr:" + end.decode(errors="ignore").encode())  # whole characters, or `ps` shows none


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if LINUX:
        from lampyr.runtime import kernel

        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


# --- what there is


def end_with_parent() -> None:
    """Have this process killed when the one that forked it ends, however that is (prctl(2)). Linux only."""
    if LINUX:
        from lampyr.runtime import kernel

        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def find() -> Means:
    """Try everything in a process of its own, which ends afterwards."""
    if not LINUX:
        return Means(missing={"room": f"{sys.platform} has no namespaces"})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _try(writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return Means(**json.loads(told)) if told else Means(missing={"room": "the trial ended without an answer"})


def _try(writer: int) -> NoReturn:
    """In the trial's process: enter namespaces as far as they go, and let the first process in them try the rest."""
    from lampyr.runtime import kernel

    means = Means()
    try:
        if os.geteuid() != 0:
            means.user_namespace = means.tried("user_namespace", enter_user_namespace)
        apart = means.tried("room", lambda: kernel.unshare(kernel.NEW_PIDS))
        if apart and (pid := os.fork()) != 0:
            os.waitpid(pid, 0)
        else:
            _try_rest(means, apart)
            os.write(writer, json.dumps(means.as_message()).encode())
    finally:
        os._exit(0)


def _try_rest(means: Means, apart: bool) -> None:
    from lampyr.runtime import kernel, room

    if apart:
        means.room = means.tried("room", lambda: room.enter(room.visible(None, (), ()), MIB))
        means.network = means.tried("network", lambda: kernel.unshare(kernel.NEW_NETWORK))
    if not means.user_namespace:
        means.users = means.tried("users", lambda: become(65534))
    means.no_new_privileges = means.tried("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
    if means.tried("landlock", lambda: kernel.landlock(("/",), ("/tmp",))):
        means.landlock = kernel.landlock_version()
    means.seccomp = means.tried("seccomp", kernel.seccomp)


def enter_user_namespace() -> None:
    """Be allowed, as an ordinary user, what the namespaces that follow need (user_namespaces(7)); same user id."""
    from lampyr.runtime import kernel

    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_USERS)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)


def become(user: int) -> None:
    """Take the identity `user`, without groups. Raises OSError."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


# --- the base snapshot


class Apart:
    """How the base forks: with a PID namespace for the child where there are rooms, so that its end ends everything."""

    def __init__(self, means: Means, *, inside: bool = False) -> None:
        """`inside` a user namespace that was entered for this already."""
        self.means = means
        self._home = -1
        if means.room:
            if means.user_namespace and not inside:
                _restart_in_user_namespace()
            self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork(self) -> int:
        """fork(2). Raises OSError."""
        from lampyr.runtime.fork import fork

        if not self.means.room:
            return fork()
        from lampyr.runtime import kernel

        kernel.unshare(kernel.NEW_PIDS)
        pid = 0
        try:
            pid = fork()
        finally:
            if pid == 0 and os.getpid() == 1 and self._home >= 0:
                os.close(self._home)
            else:
                kernel.setns(self._home, kernel.NEW_PIDS)
        return pid

    def fork_mapped(self, users: list[int] | None) -> int:
        """Fork a process that is to have a user namespace of its own, and give it its user ids as soon as it has one.

        `users` is the first id and how many there are; None: it may have none but ours, which it takes by itself.
        """
        if users is None or self.means.user_namespace:
            return self.fork()
        asks, asked = os.pipe()
        answered, answers = os.pipe()
        pid = self.fork()
        if pid == 0:
            os.close(asks)
            os.close(answers)
            self.means.handshake = (asked, answered)
            return 0
        os.close(asked)
        os.close(answered)
        try:
            if pid > 0 and os.read(asks, 1):
                for file in ("uid_map", "gid_map"):
                    with open(f"/proc/{pid}/{file}", "w") as out:
                        out.write(f"{users[0]} {users[0]} {users[1]}")
                os.write(answers, b"1")
        finally:
            os.close(asks)
            os.close(answers)
        return pid


def _restart_in_user_namespace() -> None:
    """Go on as the first process of PID and user namespaces of our own, while this one only waits for that.

    In a PID namespace of an ordinary user nobody may return to an outer one; between those of our own we may.
    """
    from lampyr.runtime import kernel

    enter_user_namespace()
    kernel.unshare(kernel.NEW_PIDS)
    pid = os.fork()
    if pid != 0:
        _only_wait_for(pid)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.unshare(kernel.NEW_MOUNTS)
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("proc", "/proc", "proc", kernel.NO_SUID | kernel.NO_DEVICES | kernel.NO_EXEC)


def _only_wait_for(pid: int) -> NoReturn:
    """Hold nothing that others wait for the end of, and end with the child."""
    os.closerange(3, MAX_OPEN_FILES)
    os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


# --- the function's snapshot


def prepare(means: Means) -> None:
    """Make, in the process that all are forked from, what `enter` would make in each alike."""
    if means.seccomp:
        from lampyr.runtime import kernel

        for tcp_only in (False, True):
            kernel.seccomp_filter(False, not means.room, not (means.room or means.users), tcp_only)


def enter(spec: Mapping[str, Any], means: Means) -> socket.socket | None:
    """Enter what the instances inherit, before any of the user's code is imported. Raises OSError.

    `spec` has "root", "file", "site", "project_paths" and "memory_mib"; it may have "user" (a user id of the function's
    own), "tmp" (its folder for temporary files where there are no rooms), "hidden", "network" and "broker" (its host
    and port). Returns the socket that the broker is to listen on, where nothing else of a network is left.
    """
    hatch = None
    server = os.geteuid()
    user = spec.get("user") if means.users else None
    limits(spec["memory_mib"], counted=user is not None or means.user_namespace)
    if not LINUX:
        return None
    from lampyr.runtime import kernel, room

    paths = room.visible(spec["root"], (*spec["site"], *spec["project_paths"]), spec.get("hidden", ()))
    if means.room:
        room.enter(paths, spec["memory_mib"] * MIB // 2)
        if means.network and spec.get("network") == "broker":
            kernel.unshare(kernel.NEW_NETWORK)
            hatch = _hatch(spec["broker"]) if spec.get("broker") else None
    if means.room or means.users:
        kernel.drop_bounding_set()
    if user is not None and _may_become(user, spec, means):
        become(user)
    if means.room or means.users:
        kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if means.no_new_privileges:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if means.landlock:
        _landlock(spec, paths, means)
    if means.seccomp:
        broker_only = spec.get("network") == "broker" and not (means.room and means.network)
        alike = not means.room and os.geteuid() == server
        kernel.seccomp(roomless=not means.room, alike=alike, tcp_only=broker_only)
    return hatch


def _hatch(address: str) -> socket.socket:
    """A socket at the broker's own address, in a network namespace where nobody else has it."""
    from lampyr.runtime import kernel

    kernel.loopback_up()
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.bind((host, int(port)))
    sock.listen(HATCH_BACKLOG)
    return sock


# --- the shared snapshot


def share(spec: Mapping[str, Any], means: Means, admitted: Callable[[], None]) -> Apart:
    """Enter what a shared snapshot may have: a room, and just enough power to make rooms for its functions in it.

    `admitted()` waits until our limits hold: the process that goes on is forked after that, and has them too. Before
    it the base waits for us.

    That power is over a user namespace of its own and ends with it: in there are the functions' user ids and no others,
    so that this process, whose packages all of them have imported anyway, can become one of them and nobody else.
    """
    from lampyr.runtime import kernel, room

    if not means.room:
        raise PermissionError(1, "without namespaces no snapshot can be shared")
    limits(spec["memory_mib"], counted=False)
    paths = room.visible(spec["root"], (*spec["site"], *spec["project_paths"]), spec.get("hidden", ()))
    room.enter(paths, SHARED_TMP_BYTES)  # first: what it shows may lie where only root can go
    if means.handshake is None:
        enter_user_namespace()
    else:
        _enter_mapped_namespace(*means.handshake)
        become(spec["user"])
    admitted()
    kernel.unshare(kernel.NEW_PIDS | kernel.NEW_MOUNTS | kernel.NEW_IPC)
    pid = os.fork()
    if pid != 0:
        _only_wait_for(pid)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.mount("proc", "/proc", "proc", kernel.NO_SUID | kernel.NO_DEVICES | kernel.NO_EXEC, "hidepid=2")
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if means.seccomp:
        kernel.seccomp(makes_rooms=True)
    return Apart(means, inside=True)


def _enter_mapped_namespace(asked: int, answered: int) -> None:
    """The same with the ids that the base writes when it is told that there is a namespace."""
    from lampyr.runtime import kernel

    kernel.unshare(kernel.NEW_USERS)
    os.write(asked, b"1")
    mapped = os.read(answered, 1)
    os.close(asked)
    os.close(answered)
    if not mapped:
        raise PermissionError(1, "the base could not map user ids")


def _may_become(user: int, spec: Mapping[str, Any], means: Means) -> bool:
    """Whether `user` can read what it has to. In a room it must; without one root's own user id is what is left."""
    os.setgroups([])
    ours = os.geteuid()
    os.setresuid(-1, user, ours)
    try:
        needed = [(sys.prefix, os.X_OK), (spec["root"], os.X_OK), (spec["file"], os.R_OK)]
        if not means.room and spec.get("tmp"):
            needed.append((spec["tmp"], os.W_OK))
        closed = [path for path, how in needed if not os.access(path, how, effective_ids=True)]
    finally:
        os.setresuid(-1, ours, ours)
    if closed and means.room:
        hint = "`chmod -R go+rX .` in the project's folder lets it"  # the root may be a deployment's copy
        raise PermissionError(13, f"the function's own user id must be able to read {closed[0]}; {hint}")
    return not closed


def _landlock(spec: Mapping[str, Any], paths: list[str], means: Means) -> None:
    from lampyr.runtime import kernel

    listable: list[str] = []
    nameable: list[str] = []
    if means.room:
        readable, writable = ["/"], ["/tmp", "/dev/shm", "/proc"]
    else:
        listable = [spec["root"], *spec["project_paths"]]  # an import begins with a look at what is there
        readable = [*paths, "/proc", *(f"/dev/{name}" for name in ("zero", "random", "urandom"))]
        writable = [spec["tmp"]] if spec.get("tmp") else []
        nameable = ["/dev/shm"]  # what others of the user keep there has names that cannot be guessed
    tcp = None
    if spec.get("network") == "broker":
        tcp = [int(spec["broker"].rpartition(":")[2])] if spec.get("broker") else []
    kernel.landlock(readable, [*writable, "/dev/null", "/dev/zero", "/dev/full"], listable, nameable, tcp=tcp)


def limits(memory_mib: int, *, counted: bool) -> None:
    """Bounds of getrlimit(2); signals mean again what they mean to any program.

    `counted`: the kernel counts our processes apart from all others of the user who started the server.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _lower(resource.RLIMIT_DATA, memory_mib * MIB + DATA_SLACK_BYTES)
    if counted:
        _lower(resource.RLIMIT_NPROC, MAX_TASKS)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


# --- the instance


def private_tmp(folder: str) -> None:
    """Make `folder` and let everything that asks for a temporary place find it."""
    os.mkdir(folder, 0o700)
    os.environ["TMPDIR"] = folder
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # of any module, as far as mypy knows

"""The system calls Python has no function for (Linux): each by its manual page, each raising OSError."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)
_keeping_lock = ctypes.PyDLL(None, use_errno=True)  # its calls do not let go of the interpreter's lock
_libc.getenv.restype = ctypes.c_void_p

# unshare(2)
NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
# mount(2)
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
# prctl(2)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 15, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

# The numbers that differ between the two machines we run on (asm/unistd.h); others come from the tables below.
_X86_64, _AARCH64 = "x86_64", "aarch64"
_PIVOT_ROOT = {_X86_64: 155, _AARCH64: 41}
_CAPSET = {_X86_64: 126, _AARCH64: 91}
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
_HERE = -100  # AT_FDCWD
_POPULATE_WRITE = 23
_EMPTY_PATH, _WHOLE_TREE = 0x1000, 0x8000


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _syscall(name: str, number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2)."""
    _call("prctl", option, ctypes.c_ulong(value), 0, 0, 0)


def set_name(name: bytes) -> None:
    """What `top` calls this process and those that it forks (prctl(2), PR_SET_NAME); the kernel keeps 15 bytes."""
    _call("prctl", PR_SET_NAME, name, 0, 0, 0)


def fork() -> int:
    """fork(2), and nothing else."""
    pid = int(_keeping_lock.fork())
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fork: {os.strerror(number)}")
    return pid


def populate(start: int, length_bytes: int) -> None:
    """Have the pages of a range, where they are mapped, as if each had been written to (madvise(2))."""
    _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length_bytes), _POPULATE_WRITE)


def wipe_variable(name: str) -> None:
    """Write zeros over the value of a variable of this process, in its first environment too (proc_pid_environ(5)).

    Deleting it would only take it off a list. It is deleted as well.
    """
    key = os.fsencode(name)
    if (address := _libc.getenv(key)) is not None:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
    value = os.environb[key]
    # The bytes object of CPython has its bytes at its end. Short ones are shared with others.
    if sys.implementation.name == "cpython" and len(value) > 1:
        ctypes.memset(id(value) + bytes.__basicsize__ - 1, 0, len(value))
    del os.environb[key]


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", flags)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def unmount(target: str) -> None:
    """umount2(2), detached: it goes when nobody uses it any more."""
    _call("umount2", os.fsencode(target), DETACH)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _syscall("pivot_root", _PIVOT_ROOT[platform.machine()], os.fsencode(new), os.fsencode(old))


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _call("setns", fd, kind)


def loopback_up() -> None:
    """Let 127.0.0.1 be reached in a network namespace of one's own (netdevice(7))."""
    import fcntl
    import socket

    with socket.socket() as sock:
        asked = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(sock, _GET_FLAGS, asked))[1]
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))


def read_only_tree(path: str) -> int:
    """A descriptor of a copy of the mounts at `path`, read-only, without set-user-id and devices (open_tree(2))."""
    fd = _syscall("open_tree", _OPEN_TREE, _HERE, os.fsencode(path), 1 | os.O_CLOEXEC | _WHOLE_TREE)
    attributes = struct.pack("QQQQ", READ_ONLY | NO_SUID | NO_DEVICES, 0, PRIVATE, 0)
    _syscall("mount_setattr", _MOUNT_SETATTR, fd, b"", _EMPTY_PATH | _WHOLE_TREE, attributes, len(attributes))
    return fd


def device(path: str) -> int:
    """A descriptor of a mount of one device file, which stays usable as a device."""
    return _syscall("open_tree", _OPEN_TREE, _HERE, os.fsencode(path), 1 | os.O_CLOEXEC)


def attach(tree: int, target: str) -> None:
    """Put a tree where `target` is (move_mount(2)) and close its descriptor."""
    try:
        _syscall("move_mount", _MOVE_MOUNT, tree, b"", _HERE, os.fsencode(target), 4)
    finally:
        os.close(tree)


def drop_bounding_set() -> None:
    """Let no file that is executed bring a capability back (capabilities(7))."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != _EINVAL:  # beyond the last one this kernel knows
                raise
            return


def drop_capabilities() -> None:
    """Give up every capability for good (capset(2))."""
    _syscall("capset", _CAPSET[platform.machine()], struct.pack("Ii", 0x20080522, 0), bytes(24))


# --- landlock(7)

# Rights over files, in the order of the bits; later versions know more of them.
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character, block
_TCP, _CONNECT = 3, 2  # bind and connect
_SCOPES = 3  # abstract Unix sockets, signals


def landlock_version() -> int:
    """The version of Landlock's interface that the running kernel has, 0 for none."""
    try:
        return _syscall("landlock_create_ruleset", _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def landlock(
    readable: Iterable[str],
    writable: Iterable[str],
    listable: Iterable[str] = (),
    nameable: Iterable[str] = (),
    *,
    tcp: Iterable[int] | None = None,
) -> None:
    """Take away every right over files but reading and executing `readable` and using `writable`.

    Of the folders in and below `listable` the names can be read, and `nameable` is for who knows a name.

    Processes outside can no longer be signalled nor reached over abstract Unix sockets, where the kernel has that
    (version 6), and with `tcp` nobody over TCP but at these ports (version 4). Needs no_new_privs.
    """
    version = landlock_version()
    every = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    head = struct.pack("QQQ", every, _TCP if version >= 4 and tcp is not None else 0, _SCOPES if version >= 6 else 0)
    head = head[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _syscall(
        "landlock_create_ruleset", _LANDLOCK_CREATE_RULESET, head, ctypes.c_size_t(len(head)), ctypes.c_uint(0)
    )
    try:
        for paths, rights in (
            (readable, _EXECUTE | _READ_FILE | _READ_FOLDER),
            (writable, every & ~_MAKE_DEVICES),
            (listable, _READ_FOLDER),
            (nameable, every & ~_MAKE_DEVICES & ~_READ_FOLDER),
        ):
            for path in paths:
                _allow(ruleset, path, rights)
        for port in tcp or () if version >= 4 else ():
            rule = struct.pack("=QQ", _CONNECT, port)
            _syscall("landlock_add_rule", _LANDLOCK_ADD_RULE, ruleset, 2, rule, ctypes.c_uint(0))
        _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        _syscall("landlock_add_rule", _LANDLOCK_ADD_RULE, ruleset, 1, rule, ctypes.c_uint(0))
    finally:
        os.close(fd)


# --- seccomp(2): a filter in classic BPF

_AUDIT_ARCH = {_X86_64: 0xC000003E, _AARCH64: 0xC00000B7}
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_EPERM, _EINVAL, _ENOSYS, _EOPNOTSUPP, _EAFNOSUPPORT = 1, 22, 38, 95, 97

# What no handler needs and every escape is made of: (x86_64, aarch64).
REFUSED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "acct": (163, 89),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mknodat": (259, 33),
    "unshare": (272, 97),
    "move_pages": (279, 239),
    "perf_event_open": (298, 241),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
}
_MKNOD_X86_64, _CLONE, _CLONE3 = 133, {_X86_64: 56, _AARCH64: 220}, 435
# Every namespace flag of clone(2); a thread or a child without one of them is nobody's escape.
_NAMESPACES = 0x7E020000 | 0x00000080


# What making a room takes.
_FOR_ROOMS = frozenset(
    ("pivot_root", "mount", "umount2", "unshare", "setns", "open_tree", "move_mount", "mount_setattr")
)

# Sockets by their family: those of files, IPv4, IPv6 and routes. Others lead around a network namespace (AF_VSOCK: to
# the hypervisor), or are for nobody but attackers (AF_ALG, AF_PACKET, AF_CAN...). Of netlink only routes: sock_diag
# tells whom this machine talks to.
_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _TCP_PROTOCOL = 1, 6

# What a process may do to another one with its user id, where nothing else keeps them apart: (x86_64, aarch64) and
# which arguments have to be what for it to mean the caller itself.
_TO_ITSELF: dict[str, tuple[tuple[int, int], tuple[tuple[int, int], ...]]] = {
    "prlimit64": ((302, 261), ((0, 0),)),
    "setpriority": ((141, 140), ((0, 0), (1, 0))),
    "ioprio_set": ((251, 30), ((0, 1), (1, 0))),
    "sched_setparam": ((142, 118), ((0, 0),)),
    "sched_setscheduler": ((144, 119), ((0, 0),)),
    "sched_setaffinity": ((203, 122), ((0, 0),)),
    "sched_setattr": ((314, 274), ((0, 0),)),
}
# What it may do to the files of that user: Landlock does not look at it. Modes and times are not changed, and nobody is
# told, as on file systems that have none: programs that copy files want to set them.
_MODES = ((90, -1), (91, 52), (268, 53), (452, 452), (132, -1), (235, -1), (261, -1), (280, 88))
_OWNERS = ((92, -1), (93, 55), (94, -1), (260, 54))
_ATTRIBUTES = ((188, 5), (189, 6), (190, 7), (463, 463), (197, 14), (198, 15), (199, 16), (466, 466), (469, 469))
# Whose files are opened (inotify(7), fanotify(7)). Where there is no IPC namespace: memory, semaphores and queues that
# have a number or a name (sysvipc(7), mq_overview(7)), which outlive all limits, and any process of that user reads.
_WATCHES = ((254, 27), (300, 262))
_SHARED = (
    *((29, 194), (30, 196), (31, 195)),
    *((64, 190), (65, 193), (66, 191), (220, 192)),
    *((68, 186), (69, 189), (70, 188), (71, 187)),
    *((240, 180), (241, 181)),
)
# TCP without connect(2), which Landlock does not see, and a port without bind(2).
_SENDS = (((44, 206), 3), ((46, 211), 2), ((307, 269), 3))
_FAST_OPEN = 0x20000000
_LISTEN = (50, 201)
# SO_LINGER has whoever closes a socket last wait for its peer, and that may be whom it was passed to: the gateway.
# Nobody is told that it does nothing, as most who set it want less waiting and not more.
_SET_OPTION, _OF_SOCKETS, _LINGER = (54, 208), 1, 13

Instruction = tuple[int, int, int, int]
_DONE: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]


def _error(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)


def _argument(index: int) -> Instruction:
    """Load the low half: what counts here is an int."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _when(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body` decides about this call."""
    return [(_EQUAL, 0, len(body), number), *body] if number >= 0 else []


def _sockets(number: int, *, unix: bool, tcp_only: bool) -> list[Instruction]:
    """Those of families that are allowed; `tcp_only`: of the Internet's only TCP."""
    internet = _DONE
    if tcp_only:
        kind = [_argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, _STREAM), _error(_EPERM)]
        protocol = [_argument(2), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, _TCP_PROTOCOL), _error(_EPERM)]
        internet = [*kind, *protocol, *_DONE]
    routes = [_argument(2), (_EQUAL, 1, 0, 0), _error(_EAFNOSUPPORT), *_DONE]
    families = [(_UNIX, _DONE if unix else [_error(_EPERM)]), (_INET, internet), (_INET6, internet), (_NETLINK, routes)]
    body = [_argument(0), *(step for family, rule in families for step in _when(family, rule)), _error(_EAFNOSUPPORT)]
    return _when(number, body)


def _only_itself(number: int, itself: tuple[tuple[int, int], ...]) -> list[Instruction]:
    steps = [step for index, value in itself for step in (_argument(index), (_EQUAL, 1, 0, value), _error(_EPERM))]
    return _when(number, [*steps, *_DONE])


def seccomp(*, makes_rooms: bool = False, roomless: bool = False, alike: bool = False, tcp_only: bool = False) -> None:
    """Have the filter of `seccomp_filter` decide about our calls from now on. Needs no_new_privs."""
    _install(seccomp_filter(makes_rooms, roomless, alike, tcp_only))


@cache
def seccomp_filter(makes_rooms: bool, roomless: bool, alike: bool, tcp_only: bool) -> Filter:
    """Refuse the calls of REFUSED with EPERM from now on, in this process and all it starts.

    `makes_rooms`: but those that are needed to make a room for somebody else. `roomless`: there are no namespaces.
    `alike`: others have our user id, too, and nothing else keeps their processes, files and sockets from us.
    `tcp_only`: no network but what Landlock judges.

    clone3 answers ENOSYS, which makes libc fall back to clone, whose flags a filter can see.
    """
    column = _column()
    refused = [pair for name, pair in REFUSED.items() if not (makes_rooms and name in _FOR_ROOMS)]
    rules = _refusals([*refused, *([_LISTEN] if tcp_only else [])])
    rules += _sockets(_SOCKET[column], unix=not (alike or tcp_only), tcp_only=tcp_only)
    rules += _sockets(_SOCKETPAIR[column], unix=True, tcp_only=tcp_only)
    linger = [_argument(1), (_EQUAL, 0, 3, _OF_SOCKETS), _argument(2), (_EQUAL, 0, 1, _LINGER), _error(0), *_DONE]
    rules += _when(_SET_OPTION[column], linger)
    if roomless:
        rules += [step for call in (*_WATCHES, *_SHARED) for step in _when(call[column], [_error(_EPERM)])]
    if alike:
        for call, itself in _TO_ITSELF.values():
            rules += _only_itself(call[column], itself)
        for calls, answer in ((_MODES, 0), (_OWNERS, _EPERM), (_ATTRIBUTES, _EOPNOTSUPP)):
            rules += [step for call in calls for step in _when(call[column], [_error(answer)])]
    if tcp_only:
        for call, flags in _SENDS:
            rules += _when(call[column], [_argument(flags), (_ANY_BIT, 0, 1, _FAST_OPEN), _error(_EPERM), *_DONE])
    return Filter(rules)


def _column() -> int:
    return (_X86_64, _AARCH64).index(platform.machine())


def _refusals(calls: Iterable[tuple[int, int]]) -> list[Instruction]:
    """Of these calls, of namespaces by clone, and of mknod in its older form."""
    column, machine = _column(), platform.machine()
    numbers = sorted({pair[column] for pair in calls} | ({_MKNOD_X86_64} if column == 0 else set()))
    clone = [_argument(0), (_ANY_BIT, 0, 1, _NAMESPACES), _error(_EPERM), *_DONE]
    rules = _when(_CLONE3, [_error(_ENOSYS)]) + _when(_CLONE[machine], clone)
    return rules + [step for number in numbers for step in _when(number, [_error(_EPERM)])]


def refuse_calls() -> None:
    """Refuse REFUSED and nothing else, as the runtimes of containers do."""
    _install(Filter(_refusals(REFUSED.values())))


class Filter:
    """`rules` decide about each call whose number they know; others are allowed."""

    def __init__(self, rules: list[Instruction]) -> None:
        program = [
            (_LOAD, 0, 0, 4),  # seccomp_data.arch
            (_EQUAL, 1, 0, _AUDIT_ARCH[platform.machine()]),
            (_RETURN, 0, 0, _KILL_PROCESS),
            (_LOAD, 0, 0, 0),  # seccomp_data.nr
        ]
        if _column() == 0:
            # The x32 numbers mean the same calls again and would pass every comparison below.
            program += [(_AT_LEAST, 0, 1, 0x40000000), _error(_EPERM)]
        program += [*rules, *_DONE]
        code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
        self._code = ctypes.create_string_buffer(code, len(code))
        self.head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(self._code))


def _install(chosen: Filter) -> None:
    _call("prctl", PR_SET_SECCOMP, ctypes.c_ulong(2), chosen.head, 0, 0)

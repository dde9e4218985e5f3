"""Route files of functions that wish the others ill: each tries one thing and reports what it got."""

from __future__ import annotations

import json
import os
from typing import Any

from serving import Server

SECRET = "canary-5c1e9d77a0b34f"

VICTIM = """
import os
import pathlib
import socket
import tempfile

runtime = "edge"
min_instances = 1
MEMORY = bytes.fromhex("76696374696d2d").decode() + "memory-31d7c0"
DOOR = socket.socket(socket.AF_UNIX)
DOOR.bind(b"\\0victim-%d" % os.getuid() + os.urandom(4).hex().encode())


async def GET():
    file = pathlib.Path(tempfile.gettempdir()) / "private"
    file.write_text(MEMORY)
    pathlib.Path("/tmp/shared-by-name").touch()
    DOOR.listen()
    return {
        "who": f"{os.stat('/proc/self/ns/pid').st_ino} {os.getpid()}",
        "user": os.getuid(),
        "file": str(file),
        "door": DOOR.getsockname()[1:].decode(),
        "tmp": os.listdir("/tmp"),
    }
"""

ATTACKER = '''
import ctypes
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

max_duration = 8
memory = 128
LIBC = ctypes.CDLL(None, use_errno=True)


WATCH, SHMGET = (254, 29) if os.uname().machine == "x86_64" else (27, 194)


def addressof(path):
    KEPT.append(ctypes.create_string_buffer(path.encode()))
    return ctypes.addressof(KEPT[-1])


KEPT = []


def attempt(step, *arguments):
    """What `step` returned, or the name of the error that kept it from doing anything."""
    try:
        result = step(*arguments)
    except OSError as error:
        return "refused " + errno.errorcode.get(error.errno, str(error))
    return f"got {result!r}"


def call(number, *arguments):
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(one) for one in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


def write(path):
    with open(path, "w") as file:
        file.write("x")


def status():
    with open("/proc/self/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def files(query):
    paths = query.getall("path")
    return {path: attempt(read, path) for path in paths}


def writes(query):
    return {path: attempt(write, path) for path in query.getall("path")}


def processes(query):
    victim = int(query.get("pid"))
    kills = {name: attempt(os.kill, pid, 0) for name, pid in (("victim", victim), ("parent", -victim))}
    return {
        "seen": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "own": os.getpid(),
        "command lines": subprocess.run(["cat /proc/[0-9]*/cmdline"], shell=True, capture_output=True).stdout.decode(),
        "kills": kills,
    }


def init(query):
    """The snapshot, our parent, is the one process besides our own that has a number here."""
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    paths = ("environ", "mem", "maps", "root/etc/passwd", "cwd/notes.txt", "fd/0")
    return {path: attempt(read, f"/proc/1/{path}") for path in paths}


def calls(query):
    from lampyr.runtime import kernel

    column = ("x86_64", "aarch64").index(os.uname().machine)
    return {name: attempt(call, numbers[column], *[0] * 6) for name, numbers in kernel.REFUSED.items()}


def spaces(query):
    """Namespaces by every door: clone with flags, clone3, from a child that was executed anew."""
    from lampyr.runtime import kernel

    code = "import ctypes as c, sys; l = c.CDLL(None, use_errno=True); sys.exit(l.unshare(1 << 28) and c.get_errno())"
    child = subprocess.run([sys.executable, "-c", code])
    clone = kernel._CLONE[os.uname().machine]
    return {
        "clone": attempt(call, clone, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": attempt(call, kernel._CLONE3, 0, 0),
        "child": errno.errorcode.get(child.returncode, str(child.returncode)),
    }


def devices(query):
    device = os.makedev(1, 1)
    return {
        "block": attempt(os.mknod, "/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
        "memory": attempt(os.mknod, "/tmp/mem", stat.S_IFCHR | 0o600, device),
        "there": sorted(os.listdir("/dev")),
        "null": attempt(write, "/dev/null"),
    }


def families(query):
    """Sockets of families that know no namespace, or that only attackers use; and netlink's other ends."""
    odd = {"PACKET": 17, "RDS": 21, "CAN": 29, "TIPC": 30, "ALG": 38, "VSOCK": 40, "QIPCRTR": 42, "XDP": 44}
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
    tried = {name: [attempt(socket.socket, number, kind) for kind in kinds] for name, number in odd.items()}
    ends = {f"netlink {end}": [attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, end)] for end in range(1, 22)}
    return {name: sorted(set(found)) for name, found in {**tried, **ends}.items()}


def neighbours(query):
    """What a process of the same user can do to the server: its limits, priority and files, and the user's sockets."""
    import resource

    pid, file, door = int(query.get("pid")), query.get("file"), query.get("socket")
    watcher = LIBC.inotify_init()

    def connect():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(door)

    os.open(query.get("own"), os.O_RDONLY)
    return {
        "limits": attempt(resource.prlimit, pid, resource.RLIMIT_NOFILE, (10, 10)),
        "priority": attempt(os.setpriority, os.PRIO_PROCESS, pid, 19),
        "priority of the user": attempt(os.setpriority, os.PRIO_USER, os.getuid(), 19),
        "processors": attempt(os.sched_setaffinity, pid, {0}),
        "scheduler": attempt(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0)),
        "owner": attempt(os.chown, file, os.getuid(), os.getgid()),
        "attribute": attempt(os.setxattr, file, "user.x", b"x"),
        "mode": attempt(os.chmod, file, 0o777),
        "times": attempt(os.utime, file, (1, 1)),
        "watch": attempt(call, WATCH, watcher, addressof(os.path.dirname(file)), 0xFFF),
        "score": attempt(write, f"/proc/{query.get('process')}/clear_refs"),
        "memory": attempt(call, SHMGET, 0, 4096, 0o600),
        "names of memory": attempt(os.listdir, "/dev/shm"),
        "socket": attempt(connect),
    }


def ipc(query):
    """System V: what earlier instances have left, and as much as can be had."""
    left = {}
    for name in ("shm", "msg", "sem"):
        with open(f"/proc/sysvipc/{name}") as file:
            left[name] = len(file.readlines()) - 1
    LIBC.shmat.restype = ctypes.c_void_p
    made, queues = 0, 0
    while made < 512 and (segment := LIBC.shmget(0, 1 << 20, 0o1600)) >= 0:
        LIBC.shmat(segment, None, 0)
        made += 1
    while queues < 1000 and LIBC.msgget(0, 0o1600) >= 0:
        queues += 1
    return {"left": left, "MiB": made, "queues": queues}


def parent(query):
    """The snapshot, which forks our siblings: without a PID namespace it is within reach."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(6)
    return {}


def after_bomb(query):
    from lampyr import after

    after(fork_bomb, query)
    return {}


def long_line(query):
    for _ in range(64):
        os.write(2, b"x" * (1 << 20))
    return {}


def privileges(query):
    PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
    return {
        "status": status(),
        "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
        "become root": attempt(os.setuid, 0),
        "own identity": attempt(os.setresuid, 1, 1, 1),
        "dumpable": LIBC.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
        "core": __import__("resource").getrlimit(4)[1],
        "su": subprocess.run(["su", "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL).returncode
        if os.path.exists("/bin/su")
        else 1,
    }


def descriptors(query):
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{name}")}


def is_socket(path):
    return stat.S_ISSOCK(os.lstat(path).st_mode)


def doors(query):
    """Every Unix socket that has a name anywhere: in the file system, or an abstract one."""
    found = []
    pythons = (sys.prefix, sys.base_prefix)  # files by the thousand
    for folder, inner, names in os.walk("/"):
        if folder.startswith(("/proc", "/usr", "/sys", *pythons)):
            inner.clear()
            continue
        found += [f"{folder}/{name}" for name in names if attempt(is_socket, f"{folder}/{name}") == "got True"]
    abstract = [query.get("door")]
    opened = []
    for name in [*found, *(f"\\0{one}" for one in abstract)]:
        with socket.socket(socket.AF_UNIX) as sock:
            if attempt(sock.connect, name).startswith("got"):
                opened.append(name)
    return {"files": found, "opened": opened}


def knock(query):
    """At the door of the server, as somebody who has found it but has not read the key."""
    def ask():
        os.chdir(query.get("state"))  # the whole path may be longer than an address
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect("door")
            sock.sendall(b'{"version": 1, "key": "", "do": "ps"}\\n')
            return sock.recv(65536)

    here = os.getcwd()
    said = attempt(ask)
    os.chdir(here)
    return {"key": attempt(read, query.get("state") + "/door.key"), "said": said}


def escapes(query):
    link = f"{os.environ['TMPDIR']}/out"
    if not os.path.lexists(link):
        os.symlink("/proc/1/root", link)
    return {
        "link": attempt(os.listdir, f"{link}/root"),
        "chroot": attempt(os.chroot, "/tmp"),
        "root": attempt(os.mkdir, "/new"),
        "up": attempt(os.listdir, "/tmp/../../../../home"),
        "there": sorted(os.listdir("/")),
        "mine": sorted(os.listdir(".")),
        "tmp": sorted(os.listdir("/tmp")),
    }


def mounts(query):
    with open("/proc/self/mountinfo") as file:
        return {line.split()[4]: line.split()[5] for line in file}


def network(query):
    address = ("127.0.0.1", int(query.get("port")))
    STREAM, DATAGRAM, FAST_OPEN = socket.SOCK_STREAM, socket.SOCK_DGRAM, 0x20000000

    def on(kind, step, *arguments, protocol=0):
        with socket.socket(socket.AF_INET, kind, protocol) as sock:
            sock.settimeout(2)
            return getattr(sock, step)(*arguments)

    return {
        "tcp": attempt(on, STREAM, "connect", address),
        "fast open": attempt(on, STREAM, "sendto", b"GET /victim HTTP/1.1\\r\\n", FAST_OPEN, address),
        "udp": attempt(on, DATAGRAM, "sendto", b"x", address),
        "mptcp": attempt(lambda: on(STREAM, "connect", address, protocol=262)),
        "sctp": attempt(lambda: on(STREAM, "connect", address, protocol=132)),
    }


# --- floods and bombs


def memory_bomb(query):
    keep = []
    while True:
        keep.append(bytearray(b"x" * (1 << 20)))


def child_memory_bomb(query):
    done = subprocess.run([sys.executable, "-c", "k=[]\\nwhile True: k.append(bytearray(b'x' * (1 << 20)))"])
    return {"child": done.returncode}


def fork_bomb(query):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass


def forks(query):
    made = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(6)
                os._exit(0)
            made += 1
    except OSError as error:
        return {"made": made, "error": errno.errorcode[error.errno]}


def thread_bomb(query):
    threading.stack_size(64 * 1024)
    made = 0
    try:
        while True:
            threading.Thread(target=time.sleep, args=(6,), daemon=True).start()
            made += 1
    except RuntimeError as error:
        return {"made": made, "error": str(error)}


def disk_flood(query):
    written = 0
    with open(f"{os.environ['TMPDIR']}/flood", "wb", buffering=0) as file:
        while True:
            try:
                written += file.write(b"x" * (1 << 20))
            except OSError as error:
                return {"written": written, "error": errno.errorcode[error.errno]}


def file_flood(query):
    made = 0
    while True:
        try:
            os.close(os.open(f"{os.environ['TMPDIR']}/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
        except OSError as error:
            return {"made": made, "error": errno.errorcode[error.errno]}


def named_memory(query):
    """POSIX memory that nobody unlinks; and what earlier instances have left."""
    left = os.listdir("/dev/shm")
    with open("/dev/shm/flood", "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * (1 << 20))
            except OSError as error:
                return {"error": errno.errorcode[error.errno], "left": left}


def descriptor_flood(query):
    keep = []
    while True:
        try:
            keep.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            for fd in keep:
                os.close(fd)
            return {"made": len(keep), "error": errno.errorcode[error.errno]}


def log_flood(query):
    until = time.monotonic() + 2
    lines = 0
    while time.monotonic() < until:
        os.write(1, b"flood\\n" * 10_000)
        lines += 10_000
    return {"lines": lines}


def spin(query):
    until = time.monotonic() + 2
    for _ in range(8):
        if os.fork() == 0:
            while time.monotonic() < until:
                pass
            os._exit(0)
    while time.monotonic() < until:
        pass
    return {}


def leave(query):
    os._exit(0)


def lineage(query):
    """A child of a child of a child..., each of which waits, as a build has them; and then an end."""
    reader, writer = os.pipe()
    for _ in range(20):
        if os.fork():
            break
    else:
        os.write(writer, b"x")
    if os.getppid() == 1:
        os.read(reader, 1)
        os._exit(1)
    time.sleep(60)


def child(query):
    """A program that takes a while."""
    return subprocess.run(["sh", "-c", "sleep 1; sleep 1; echo done"], capture_output=True, text=True).stdout


def daemon(query):
    """A child three sessions away that would still be there later."""
    if (pid := os.fork()) == 0:
        for _ in range(3):
            os.setsid()
            if os.fork():
                os._exit(0)
        while True:
            time.sleep(1)
    os.waitpid(pid, 0)
    return {"who": f"{os.stat('/proc/self/ns/pid').st_ino} {os.getpid()}"}


def GET(req):
    return globals()[req.params.get("how") or req.query.get("how")](req.query)
'''


# Where no bomb has to be ended by the deadline, a machine that is busy may take its time.
PATIENT = ATTACKER.replace("max_duration = 8", "max_duration = 30")


def facts(server: Server, how: str, **query: object) -> dict[str, Any]:
    """What the attacker found out when it tried `how`."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    answer = server.get(f"/attacker/{how}?{asked}")
    assert answer.status == 200, (answer.body, server.lines[-20:])
    return dict(json.loads(answer.body))


def host_pid(server: Server, who: str) -> int:
    process = server.who_is(who)
    assert process is not None and os.path.exists(f"/proc/{process.pid}")
    return int(process.pid)

"""The room of a function: a root folder of its own with what Python needs, read-only, and a place for temporary files.

Everything else of the machine is not hidden in it but absent: other projects, homes, sockets, devices. Linux only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from stat import S_ISDIR

from lampyr.runtime import kernel

# What programs and libraries expect to find; a name that is not there is left out. Not /opt or /srv, where other
# projects lie as often as software does. The list of processors is read by numerical libraries.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/nix/store")
EXTRAS = ("/etc/resolv.conf", "/etc/localtime", "/sys/devices/system/cpu")
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
# Never shown of a project: its state, its history, and (by their beginning) the files with its secrets.
HIDDEN = frozenset({".lampyr", ".git"})
SECRETS = ".env"
# A folder to build the room on; what is in it has been opened before.
BUILDING_SITES = ("/mnt", "/tmp", "/srv", "/var")
# A file without content costs memory too, about 1 KiB.
BYTES_PER_FILE = 8 * 1024
SEAL = kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES


def python_paths() -> set[str]:
    """Where this interpreter and what it may import lie."""
    found = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path}
    executable = os.path.realpath(sys.executable)
    found.add(os.path.dirname(os.path.dirname(executable)))
    return {path for path in found if os.path.isabs(path)}


def visible(project: str | None, more: Iterable[str], hidden: Iterable[str]) -> list[str]:
    """The paths a function may see, parents before children and none inside another."""
    wanted = {*SYSTEM, *EXTRAS, *python_paths(), *more} | ({project} if project else set())
    wanted |= {os.path.realpath(path) for path in wanted if not path.startswith("/sys/")}
    secret = [os.path.realpath(path) for path in hidden]
    places = {place for path in wanted if path != "/" for place in _without(path, project, secret)}
    kept: list[str] = []
    for path in sorted(places, key=lambda path: path.split("/")):
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return kept


def _without(path: str, project: str | None, hidden: list[str]) -> Iterator[str]:
    """`path`, or where something in it must not be seen, what else is in it."""
    path = path.rstrip("/")
    if path in hidden or not os.path.exists(path):
        return
    around = path + "/"
    is_project = path == project
    if not is_project and not any(one.startswith(around) for one in (*hidden, *([project] if project else ()))):
        yield path
        return
    for entry in os.scandir(path):
        if not (is_project and (entry.name in HIDDEN or entry.name.startswith(SECRETS))):
            yield from _without(entry.path, project, hidden)


def enter(paths: list[str], tmp_bytes: int) -> None:
    """Leave the machine's folders for a room with `paths` in it, in a mount and IPC namespace of its own.

    The process must be the first of a PID namespace: the room's /proc shows that. Raises OSError.
    """
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_IPC)
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    trees = [(path, kernel.read_only_tree(path)) for path in paths]
    devices = [(f"/dev/{name}", kernel.device(f"/dev/{name}")) for name in DEVICES]
    umask = os.umask(0o022)
    site = next(place for place in BUILDING_SITES if os.path.isdir(place))
    plain = kernel.NO_SUID | kernel.NO_DEVICES
    kernel.mount("tmpfs", site, "tmpfs", plain, "mode=755,size=1m,nr_inodes=16k")
    for folder in ("proc", "dev", "tmp", "dev/shm"):
        os.mkdir(f"{site}/{folder}")
    for folder in ("tmp", "dev/shm"):
        options = f"mode=1777,size={tmp_bytes},nr_inodes={tmp_bytes // BYTES_PER_FILE}"
        kernel.mount("tmpfs", f"{site}/{folder}", "tmpfs", plain, options)
    kernel.mount("proc", f"{site}/proc", "proc", plain | kernel.NO_EXEC, "hidepid=2")
    _bound_ipc(f"{site}/proc/sys/kernel", tmp_bytes)
    sealed = sorted({f"{site}/tmp/{path.split('/')[2]}" for path in paths if path.startswith("/tmp/")})
    for folder in sealed:  # where a project lies in /tmp, nobody may put a file beside it
        os.mkdir(folder)
        kernel.mount("tmpfs", folder, "tmpfs", plain, "mode=755,size=1m")
    for path, tree in trees + devices:
        _make_like(tree, site + path)
        kernel.attach(tree, site + path)
    for folder in sealed:
        kernel.mount(None, folder, None, SEAL)
    for name, target in LINKS.items():
        os.symlink(target, f"{site}/dev/{name}")
    _move_in(site)
    os.umask(umask)


def _bound_ipc(settings: str, most_bytes: int) -> None:
    """Let System V memory go with its last process, and be no more than temporary files may (sysvipc(7)).

    It would stay with the namespace, instance after instance, where no limit of an instance counts it. So would queues
    and semaphores, of which there may be few.
    """
    pages = most_bytes // os.sysconf("SC_PAGE_SIZE")
    for name, value in (("shm_rmid_forced", 1), ("shmall", pages), ("msgmni", 16), ("sem", "250 4000 32 16")):
        try:
            with open(f"{settings}/{name}", "w") as file:
                file.write(str(value))
        except OSError:  # before Linux 6.8 an ordinary user may not, whose namespace it is or not
            return


def _make_like(tree: int, target: str) -> None:
    """An empty file or folder, whichever `tree` is, for it to be mounted on."""
    if S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _move_in(site: str) -> None:
    """Make `site` the root and let the old root go (pivot_root(2): one may be put onto the other)."""
    os.chdir(site)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.mount(None, "/", None, SEAL)

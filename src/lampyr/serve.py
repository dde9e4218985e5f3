"""Composition root: the only place that knows every floor. Checks, locks, listens, and hands over to the supervisor."""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import resource
import secrets
import shutil
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO

from lampyr import config, errors
from lampyr.build import brokering, environment, uv
from lampyr.build.progress import Progress
from lampyr.build.scan import scan
from lampyr.build.supply import Supplier
from lampyr.console import token
from lampyr.control import door, otel
from lampyr.control.registry import FOLDER, Registry
from lampyr.control.releases import not_served
from lampyr.errors import LampyrError, PortError, StateError
from lampyr.model import catalog, choice
from lampyr.node import hierarchy
from lampyr.node.supervisor import Supervisor
from lampyr.runtime import sandbox
from lampyr.types import Problem, Project, Secret
from lampyr.vault import held
from lampyr.vault.place import Place

# A stop signal waits this long for what runs; in development nobody wants to wait.
DRAIN_LIMIT_S = {"production": 30.0, "development": 3.0}
BACKLOG = 2048
MOST_OPEN_FILES = 1 << 20


def run(root: Path, *, mode: str, host: str, port: int, state_dir: Path, as_json: bool) -> int:
    """Serve the project at `root` until a signal; returns the exit code. Raises LampyrError."""
    root = root.resolve()
    settings = config.load(root)
    project = scan(root, settings)
    sandbox.close_memory()
    _open_many_files()
    master = _master_key(Place(state_dir))

    providers = settings.providers.values()
    models = [_LocalModel(provider) for provider in providers if provider.kind in ("local", "echo")]
    broker = _Broker(settings, {one.provider: one.address for one in models})

    def look() -> None:
        found = environment.read(root, mode, os.environ, _vault(Place(state_dir), master, mode))
        _tell(found.given(broker.brokered).judge(project), fatal=mode == "production")

    _apart(look)
    lock = _lock(state_dir)
    tmp = _fresh_tmp(state_dir)
    listening = _listen(host, port)
    begin = _chosen(Registry(state_dir, root), state_dir) if mode == "production" else None
    entrance, key = door.build(state_dir)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening[0].getsockname()[1]}"
    desk = _listen_for_people(settings.server.console_port)
    console_token = token.keep(state_dir)
    console_url = f"http://127.0.0.1:{desk.getsockname()[1]}/"
    opening_url = f"{console_url}?token={console_token}"

    def ready() -> None:
        if as_json:
            told = {"event": "ready", "url": url, "console": opening_url}
            print(json.dumps(told, separators=(",", ":")), flush=True)
        else:
            # A log is no place for the token; a terminal is where a person looks.
            shown = opening_url if sys.stderr.isatty() else f"{console_url} (`lampyr console` prints it with its token)"
            print(f"lampyr: console {shown}", file=sys.stderr)
            print(f"lampyr: ready {url}", flush=True)

    tracing, complaint = otel.wanted(os.environ)
    if complaint:
        print(f"lampyr: warning: {complaint}", file=sys.stderr)
    gateway = {
        "tracing": tracing,
        "tmp": str(tmp),
        "root": str(root),
        "copies": str(state_dir.resolve() / FOLDER),
        "ledger": str(state_dir / "ledger"),
        "logs": {"folder": str(state_dir / "logs"), "size": settings.logs.size, "days": settings.logs.days},
        "development": mode == "development",
        "max_connections": settings.server.max_connections,
        "max_concurrency": settings.server.max_concurrency,
        "snapshot_memory": settings.server.snapshot_memory,
    }
    vault = {
        "state": str(state_dir),
        "root": str(root),
        "mode": mode,
        "brokered": broker.brokered.message() if broker.brokered else None,
    }
    control = {
        "tracing": tracing,
        "otel": otel.variables(os.environ) if tracing is not None else {},
        "root": str(root),
        "ledger": str(state_dir / "ledger"),
        "ledger_days": settings.server.ledger_days,
        "mode": mode,
        "state": str(state_dir),
        "begin": begin,
        "url": url,
        "index": uv.variables(os.environ),
        "loopback": all(_is_loopback(sock) for sock in listening),
        "key": key,
        "console": opening_url,
        "broker": broker.brokered.address.removeprefix("http://") if broker.brokered else None,
    }
    console = {"root": str(root), "state": str(state_dir), "url": url, "mode": mode, "token": console_token}
    supervisor = Supervisor(
        listening,
        gateway,
        vault,
        master,
        control,
        console,
        entrance,
        desk,
        ready,
        DRAIN_LIMIT_S[mode],
        broker.listening(),
    )
    for one in models:
        one.tell()
        assert broker.brokered is not None
        supervisor.start_on_call(
            "the local model", one.sock, one.command, {choice.KEY_VARIABLE: broker.brokered.model_key}
        )
    try:
        return supervisor.run()
    finally:
        door.remove(state_dir)
        shutil.rmtree(tmp, ignore_errors=True)
        hierarchy.remove_stale()
        lock.close()


def _open_many_files() -> None:
    """As many as may be: an instance takes five descriptors, and many shells allow 1024 where 4096 and more may be had.

    Functions have a limit of their own (runtime.sandbox).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else MOST_OPEN_FILES, most))


def _apart(check: Callable[[], None]) -> None:
    """Do it in a child: no secret of the vault is ever in this process, which is the parent of all others."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            sandbox.end_with_parent()
            check()
            os._exit(0)
        except LampyrError as error:
            problems = [asdict(one) for one in error.problems]
            told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "problems": problems}
            os.write(writing, json.dumps(told).encode())
        except KeyboardInterrupt:
            pass
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = json.loads(pipe.read() or b"null")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if told is not None:
        found = [Problem(**one) for one in told["problems"]]
        raise getattr(errors, told["kind"], LampyrError)(told["message"], told["hint"], found)
    if status != 0:
        raise LampyrError(f"the check of the project ended with status {status}", "the lines above may say why")


def _master_key(where: Place) -> int:
    """In a file (vault.held), LAMPYR_MASTER_KEY or what a person types now: nobody can be asked later."""
    master = held.of_environment()
    if held.is_empty(master) and sys.stdin.isatty() and where.exists():
        from lampyr.vault import store

        if store.needs_passphrase(where):
            _apart(lambda: held.put(master, [getpass.getpass("Passphrase of the vault: ")]))
    return master


def _vault(where: Place, master: int, mode: str) -> dict[str, Secret]:
    """What is in the vault; what opens one is imported only where there is one. Only for a check, in a child."""
    if not where.exists():
        return {}
    from lampyr.vault import acts
    from lampyr.vault.master import Keys

    return acts.values(where, Keys(held.texts(master)[0]), mode)


class _Broker:
    """Where functions reach their providers: its address is known before it runs. `here` says where our models are."""

    def __init__(self, settings: config.Config, here: Mapping[str, str]) -> None:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self.brokered = brokering.of(settings.providers.values(), address, secrets.token_hex(32), here)

    def listening(self) -> socket.socket | None:
        """The socket, for the broker; None where there is nothing for it to do."""
        if self.brokered is None:
            self._sock.close()
            return None
        self._sock.listen(BACKLOG)
        return self._sock


class _LocalModel:
    """The model process of a provider of kind "local" or "echo": its address is known before it runs."""

    def __init__(self, provider: config.Provider) -> None:
        self.provider = provider.name
        self._echo = provider.kind == "echo"
        self._name = provider.models[0] if provider.models else catalog.DEFAULT
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=128)

    def command(self, fd: int) -> list[str]:
        return choice.command(fd, name=self._name, echo=self._echo)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}"

    def tell(self) -> None:
        """Say who answers, and plainly so where it is only the echo."""
        status = choice.Status(backend="echo", model="echo") if self._echo else choice.status(self._name)
        print(f"lampyr: {status.sentence}", file=sys.stderr)
        if status.hint:
            print(f"hint: {status.hint}", file=sys.stderr)


def _tell(project: Project, *, fatal: bool) -> None:
    """Problems go to stderr; in production errors end the start, in development the other routes go on working."""
    for warning in project.warnings:
        print(f"lampyr: warning: {warning}", file=sys.stderr)
    if project.errors and fatal:
        raise not_served(project.errors)
    for problem in project.errors:
        print(f"lampyr: error: {problem}", file=sys.stderr)


def _chosen(registry: Registry, state_dir: Path) -> str:
    """The deployment to begin with: what served last, or a copy of the project if its files are none yet.

    What it and the previews ask for is installed. Raises LampyrError.
    """
    index = registry.read()
    copy = registry.copy()
    id = index.active if index.active and copy in index.deployments else copy
    if id != copy:
        print(f"lampyr: serving the deployment {id}; the project's files are those of {copy}", file=sys.stderr)
        print(f"hint: `lampyr deploy` switches to {copy}", file=sys.stderr)
    with Progress() as progress:
        supplier = Supplier(state_dir, os.environ, progress.now_at)
        for one in (id, *(one.id for one in index.deployments.values() if one.preview)):
            folder = registry.root if one == copy else registry.folder(one)
            supply = supplier.get(scan(folder, config.load(folder), registry.root))
            if supply.problems and one == id:
                raise not_served(supply.problems)
    return id


def _lock(state_dir: Path) -> IO[str]:
    """One server per state directory. The lock goes with the process, however it ends (flock(2))."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = open(state_dir / "lock", "a+")  # noqa: SIM115  held as long as the server runs
    except OSError as error:
        raise StateError(
            f"the state directory {state_dir} cannot be written: {error.strerror}",
            "make it writable, or name another with --state-dir",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise StateError(
            f"the state directory {state_dir} is in use by another server" + (f" (pid {owner})" if owner else ""),
            "stop that server, or give this one its own with --state-dir",
        ) from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        raise StateError(
            f"the state directory {state_dir} cannot be written: {error.strerror}", "free some space on its disk"
        ) from error
    return lock


def _fresh_tmp(state_dir: Path) -> Path:
    """The folder of the instances' private temporary folders, without what an earlier server left."""
    tmp = state_dir.resolve() / "tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    try:
        tmp.mkdir(exist_ok=True)
    except OSError as error:
        raise StateError(
            f"the state directory {state_dir} cannot be written: {error.strerror}",
            "make it writable, or name another with --state-dir",
        ) from error
    return tmp


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`, all on one port. Raises PortError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        message = f"the host {host!r} cannot be resolved: {error.strerror}"
        raise PortError(message, "use an address, for example 127.0.0.1") from error
    listening: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        wanted = listening[0].getsockname()[1] if listening else port
        try:
            sock.bind((address[0], wanted, *address[2:]))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if listening and family == socket.AF_INET6:
                continue  # a machine without IPv6 on loopback still serves the name over IPv4
            raise _port_error(host, port, error) from error
        listening.append(sock)
    return listening


def _listen_for_people(port: int) -> socket.socket:
    """The console's socket: on loopback, whatever the public port is on. Raises PortError."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        raise _port_error("127.0.0.1", port, error, "change [server] console_port, or let 0 pick a free one") from error


def _port_error(
    host: str, port: int, error: OSError, hint: str = "choose another port with --port, or 0 for any free one"
) -> PortError:
    owner = _owner(port)
    by = f" by {owner}" if owner else ""
    reason = f"it is in use{by}" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRNOTAVAIL:
        hint = "--host is an address of this machine; 0.0.0.0 is every one of IPv4"
    return PortError(f"cannot listen on {host}:{port}: {reason}", hint)


def _owner(port: int) -> str | None:
    """The process that listens on `port`, where the system lets us know: the eldest, where several share the socket."""
    import psutil  # 20 ms that only this error pays

    def listens(process: psutil.Process) -> bool:
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections())

    try:
        # Only those who listen: what a client has just left there in TIME_WAIT is nobody's.
        found = next(
            (
                one.pid
                for one in psutil.net_connections("tcp")
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port
            ),
            None,
        )
        if not found:
            return None
        process = psutil.Process(found)
        while (parent := process.parent()) is not None and listens(parent):
            process = parent
        return f"{process.name()} (pid {process.pid})"
    except psutil.Error:
        return None


def _is_loopback(sock: socket.socket) -> bool:
    address = sock.getsockname()[0]
    return bool(address.startswith("127.") or address == "::1")

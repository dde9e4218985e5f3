"""Every descriptor that a function's code can find in its process, why it is there, and what can be done with it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import FUNCTIONS, PROJECT, check
from serving import Server, until, write


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("descriptors") / "project"
    write(root, PROJECT)
    server = Server(root, "start")
    yield server
    server.stop()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_descriptors_of_a_function_are_these_and_no_others(looking: Server, name: str) -> None:
    check(looking, name)


HOSTILE = '''
import array
import os
import socket
import struct
import sys
import threading
import http.client
import json
import subprocess
import sys
import threading
import time

from lampyr.runtime import wire

max_duration = 3
concurrency = {concurrency}
rate_limit = "none"


def held():
    """Descriptors beyond the standard ones."""
    names = os.listdir("/proc/self/fd")
    return [int(name) for name in names if int(name) > 2 and os.path.lexists(f"/proc/self/fd/{{name}}")]


def sockets():
    """Those that lead out of this process: whose other end it does not hold itself."""
    found = []
    for fd in held():
        try:
            sock = socket.socket(fileno=os.dup(fd))
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            continue
        if sock.family == socket.AF_UNIX and struct.unpack("3i", peer)[0] != os.getpid():
            sock.setblocking(False)
            found.append(sock)
    return found


def lingering(seconds):
    """A socket whose close waits so long for a peer that does not read."""
    listener = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(listener.getsockname())
    KEPT.extend((listener, listener.accept()[0]))
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return sock


KEPT = []


def put(fd, data):
    try:
        os.set_blocking(fd, False)
        os.write(fd, data)
    except OSError:
        pass


def garbage():
    for fd in [1, 2, *held()]:
        put(fd, os.urandom(3000) + b"\\n")


def messages():
    """What a snapshot says, to everybody."""
    said = ('"forked": 1', '"exited": 1, "status": 0', '"ready": [], "files": []', '"failed": {{}}', '"ping": 1')
    for text in [("{{" + one + "}}").encode() for one in said]:
        for fd in held():
            put(fd, len(text).to_bytes(4, "big") + text)


def frames():
    """Frames of all kinds for the calls of all streams, to everybody."""
    for stream in range(20):
        for kind in range(24):
            for fd in held():
                put(fd, wire.frame(stream, kind, b"200\\0forged"))


def marks():
    """Lines as if they were written in somebody else's invocation."""
    for who in ("{{}}", "x" * 20, os.environ.get("OTHER", "0")):
        for fd in (1, 2):
            put(fd, b"\\x1e" + who.encode() + b"\\x1fforged by the attacker\\n")


def closes():
    for fd in [0, 1, 2, *held()]:
        try:
            os.close(fd)
        except OSError:
            pass


def keeps():
    """A child of a child holds everything, and goes on writing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                garbage()
                time.sleep(0.01)
        os._exit(0)
    os._exit(1)


def passes():
    """Everything to everybody: the gateway can do nothing with it and has nothing to take it with."""
    for sock in sockets():
        for _ in range(50):
            try:
                sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2, *held()]))])
            except OSError:
                break


def lingers(seconds=20):
    """Let somebody else wait for the close of a socket."""
    evil = [lingering(seconds) for _ in range(8)]  # whoever closes last waits
    for sock in sockets():
        for one in evil:
            try:
                sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])
            except OSError:
                pass
            threading.Thread(target=one.close).start()


def takes_over():
    """Listen to what comes for this process, through the log's pipes and the link."""
    for fd in (1, 2):
        try:
            os.read(os.open(f"/proc/self/fd/{{fd}}", os.O_RDONLY | os.O_NONBLOCK), 100)
        except OSError:
            pass
    for sock in sockets():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.shutdown(socket.SHUT_RD)


def in_the_snapshot():
    """With the channel to the gateway, later than its deployment looks."""
    time.sleep(3)
    for how in (messages, garbage, passes, lingers):
        how()


if {concurrency} == 2:
    threading.Thread(target=in_the_snapshot, daemon=True).start()


def GET(req):
    how = req.query.get("how")
    if how:
        globals()[how]()
        time.sleep(0.2)
    return "as if nothing had happened"
'''
VICTIM = """
import os
max_instances = 1  # no spare one where the machine is slow

def GET():
    print("a line of the victim")
    return {"who": f"{os.stat('/proc/self/ns/pid').st_ino} {os.getpid()}"}
"""
ABUSES = ("garbage", "messages", "frames", "marks", "closes", "keeps", "passes", "lingers", "takes_over")


@pytest.fixture(scope="module", params=["standard", "edge"])
def abused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("abused") / "project"
    concurrency = 1 if request.param == "standard" else 10
    write(root, {"app/victim/route.py": VICTIM, "app/hostile/route.py": HOSTILE.format(concurrency=concurrency)})
    server = Server(root, "start")
    yield server
    server.stop()


@pytest.mark.parametrize("how", ABUSES)
def test_only_the_function_that_misuses_its_descriptors_suffers(abused: Server, how: str) -> None:
    who = abused.get("/victim").json()["who"]
    suffers(abused, f"/hostile?how={how}", who)
    until(lambda: abused.get("/hostile").status == 200, "the function to be well again")


def test_a_snapshot_that_misuses_its_channel_is_replaced_and_nobody_else_waits(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(root, {"app/victim/route.py": VICTIM, "app/hostile/route.py": HOSTILE.format(concurrency=2)})
    server = Server(root, "start")
    who = server.get("/victim").json()["who"]
    for _ in range(3):
        suffers(server, "/hostile", who)
    until(lambda: server.get("/hostile").status == 200, "the function to be well again")
    server.stop()


LIAR = """
import os
import socket
import time

import lampyr
from lampyr.runtime import instance

max_duration = 5


@lampyr.after_restore
def lie():
    if os.fork() == 0:
        for name in os.listdir("/proc/self/fd"):
            try:
                sock = socket.socket(fileno=int(name))
                if sock.type == socket.SOCK_SEQPACKET:
                    sock.send(instance.HELLO)
            except OSError:
                pass
        time.sleep(30)
        os._exit(0)
    instance.HELLO = b""  # what its child has said is enough


def GET():
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    return "busy"
"""


def test_what_a_child_says_first_does_not_hide_what_its_parent_uses(tmp_path: Path) -> None:
    write(tmp_path / "project", {"app/liar/route.py": LIAR})
    server = Server(tmp_path / "project", "start")
    assert server.get("/liar").body == b"busy"
    server.stop()
    command = [sys.executable, "-m", "lampyr", "usage", str(server.root), "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["total"]["invocations"] == 1 and told["total"]["cpu_ms"] >= 280, told["total"]


def suffers(server: Server, path: str, who: str) -> None:
    """While the abuse goes on, and a while afterwards, the victim answers at once and from the same process."""
    slowest_s = 0.0
    thread = threading.Thread(target=lambda: forgiving(server, path))
    thread.start()
    until_s = time.monotonic() + 2
    while thread.is_alive() or time.monotonic() < until_s:
        began_s = time.monotonic()
        answer = server.get("/victim")
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert answer.status == 200 and answer.json()["who"] == who
        assert "warm" in answer.headers["server-timing"]
        thread.join(0.02)
    assert slowest_s < 10, slowest_s  # who waited for a socket that lingers would wait for 20
    gateway = [one for one in server.lines if "gateway has ended" in one]
    assert not gateway, server.lines[-20:]


def forgiving(server: Server, path: str) -> None:
    try:
        server.get(path)
    except (OSError, http.client.HTTPException):
        pass

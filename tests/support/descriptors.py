"""Functions that list the descriptors they hold, and which those are to be."""

from __future__ import annotations

from typing import Any

from serving import Server

LOOK = '''
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys

LOOK = r"""
import fcntl, json, os, socket, stat
WAYS = {os.O_RDONLY: "reads", os.O_WRONLY: "writes", os.O_RDWR: "both"}
KINDS = {socket.SOCK_STREAM: "stream", socket.SOCK_SEQPACKET: "packets"}

def describe(fd):
    target = os.readlink(f"/proc/self/fd/{fd}")
    what = target.partition(":")[0]
    if what == "socket":
        with socket.socket(fileno=os.dup(fd)) as sock:
            what = f"socket {sock.family.name} {KINDS[sock.type]} {'named' if sock.getsockname() else 'nameless'}"
    elif what == "anon_inode":
        what = target
    how = WAYS[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE]
    return [what, how, "inherited" if os.get_inheritable(fd) else "closed by exec", target]

def look():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = describe(int(name))
        except FileNotFoundError:  # that of the listing itself
            pass
    return found
"""
exec(LOOK)
AT_IMPORT = look()


def GET():
    code = LOOK + "print(json.dumps(look()))"
    run = [sys.executable, "-c", code]
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.write(writer, json.dumps(look()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        forked = json.loads(pipe.read())
    done = subprocess.run(run, stdin=None, stdout=subprocess.PIPE, close_fds=False)
    return {"import": AT_IMPORT, "handler": look(), "forked": forked, "executed": json.loads(done.stdout)}
'''

# Why each is there, and why it is nobody's way to anybody else:
NOTHING = ["/dev/null", "both", "inherited"]  # standard input: what every program expects to have
# Standard output and error: pipes of this process alone, whose other ends only the gateway reads. They say nothing of
# who writes; whose line it is the gateway knows by the pipe.
LOG = ["pipe", "writes", "inherited"]
# The orders of the gateway to this function's snapshot. In instances it is closed.
ORDERS = ["socket AF_UNIX stream nameless", "both", "closed by exec"]
# What the memory of the parent was, sealed against writing, and which pages of ours differ from it (runtime/image.py,
# where Lampyr is compiled): nothing that this process does not have in its memory. Instances have neither.
IMAGE = ["/memfd", "reads", "closed by exec"]
PAGES = ["/proc/1/pagemap", "reads", "closed by exec"]
# The requests for this instance and its answers: a socket of its own with the gateway at the other end. A process that
# it forks has it closed.
PACKETS = ["socket AF_UNIX packets nameless", "both", "closed by exec"]
STREAM = ["socket AF_UNIX stream nameless", "both", "closed by exec"]
# asyncio: its poll object, and the two ends of the pair by which threads wake it; made by and for this process.
LOOP = [["anon_inode:[eventpoll]", "both", "closed by exec"], STREAM, STREAM]

FUNCTIONS = {
    "standard": ("", [PACKETS]),
    "edge": ('runtime = "edge"', [STREAM]),
    "networkless": ('network = "broker"', [PACKETS]),
    "sharing": ("import pydantic", [PACKETS]),
    "as_well": ("import pydantic", [PACKETS]),
}
PROJECT = {f"app/{name}/route.py": f"{setting}\n{LOOK}" for name, (setting, _) in FUNCTIONS.items()}


def seen(found: dict[str, list[str]]) -> list[list[str]]:
    """What is open from 3 on, in any order; what stands at 0 to 2 is checked."""
    assert [found[fd][:3] for fd in "012"] == [NOTHING, LOG, LOG], found
    assert found["1"][3] != found["2"][3]
    return sorted(what[:3] for fd, what in found.items() if int(fd) > 2)


def check(server: Server, name: str) -> None:
    link = FUNCTIONS[name][1]
    found: dict[str, dict[str, Any]] = server.get(f"/{name}").json()
    assert seen(found["import"]) in ([ORDERS], sorted([ORDERS, IMAGE, PAGES])), found["import"]
    assert seen(found["handler"]) == sorted([*LOOP, *link]), found["handler"]
    writer = ["pipe", "writes", "closed by exec"]  # of the test's own
    assert seen(found["forked"]) == sorted([*LOOP, writer]), found["forked"]
    found["executed"]["1"] = found["handler"]["1"]  # the test reads what it says
    assert seen(found["executed"]) == [], found["executed"]
    ours = {what[3] for fd, what in found["handler"].items() if fd != "0"}
    assert not ours & {what[3] for what in found["import"].values() if what[0] != "/dev/null"}, "none is the snapshot's"

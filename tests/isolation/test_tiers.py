"""With less than everything there is still a sandbox, everything works in it, and one line says what is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import descriptors
import pytest
from hostile import PATIENT, SECRET
from serving import Server, ended, until, write
from wheels import index, wheel

ROUTE = """
import os
import subprocess
import sys
import tempfile
import helper


def GET():
    import colorsys  # nobody has imported it before
    from inner import more

    with tempfile.NamedTemporaryFile("w") as file:
        file.write("x")
    child = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
    return {"user": os.getuid(), "child": child.stdout, "helper": helper.NAME, "more": more.NAME}
"""
LOOP = """
import subprocess
import urllib.error, urllib.request
max_duration = 60

def GET(req):
    if req.params["client"] == "curl":
        text = subprocess.run(["curl", "-s", req.url], capture_output=True, text=True, check=True).stdout
        return "1" if "INFINITE_LOOP_DETECTED" in text else str(int(text) + 1)
    try:
        return str(int(urllib.request.urlopen(req.url).read()) + 1)
    except urllib.error.HTTPError as error:
        return "1" if error.code == 508 else str(error)
"""
# A thread of the import holds the channel of its snapshot, and says of the gateway, or of whomever it can name, that it
# is the instance that was ordered; later than its deployment looks.
USURPER = """
import array, os, socket, struct, threading, time

idle_timeout = 0
SAID = b'{"forked": 77, "fds": 1}'


def channel():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if sock.family == socket.AF_UNIX:
            return sock


def usurp(sock):
    gateway = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    named = os.pidfd_open(gateway or os.getpid())
    while True:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [named]))]
        sock.sendmsg([len(SAID).to_bytes(4, "big") + SAID], rights)
        time.sleep(0.002)


def later(sock):
    time.sleep(3)
    usurp(sock)


threading.Thread(target=later, args=(channel(),), daemon=True).start()


def GET():
    return "usurped"
"""
CALL = """
import sys, urllib.error, urllib.request

def call(base, key):
    ask = urllib.request.Request(base + "/models", headers={"authorization": "Bearer " + key})
    try:
        with urllib.request.urlopen(ask, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
"""
CALLS = f"""
import os, subprocess
{CALL}
def GET():
    base, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
    child = subprocess.run(
        [sys.executable, "-c", {CALL!r} + "print(call(*sys.argv[1:]))", base, key], capture_output=True, text=True
    )
    return dict(own=call(base, key), child=child.stdout + child.stderr, base=base, key=key[::-1])
"""
LAMP = """
# /// script
# dependencies = ["lamp"]
# ///
import lamp

def GET():
    return lamp.VERSION
"""
PROJECT = {
    **descriptors.PROJECT,
    "app/usurper/route.py": USURPER,
    "app/works/route.py": ROUTE,
    "app/attacker/[how]/route.py": PATIENT,
    "app/loop/[client]/route.py": LOOP,
    "app/cut/route.py": f'network = "broker"\n{PATIENT}',
    "app/lamp/route.py": LAMP,
    "helper.py": "NAME = 'helper'\n",
    "inner/more.py": "NAME = 'more'\n",
    ".env": f"A_TOKEN={SECRET}\n",
}
USER = 54321
ORDINARY = Path(__file__).parents[1] / "support" / "ordinary.py"
TIERS = ["ordinary", "container", "ordinary container"]


@contextmanager
def serving(name: str, project: dict[str, str]) -> Iterator[Server]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    user = USER if "ordinary" in name else 0
    walls = "container" if "container" in name else "open"
    # Not in pytest's own folder, which every run of pytest that begins meanwhile shuts for others.
    with tempfile.TemporaryDirectory(prefix="lampyr-tier-") as top:
        root, wheels = Path(top, "project"), Path(top, "wheels")
        write(root, project)
        env = index(wheels, Path(top, "cache"))
        wheel(wheels, "lamp", "1.0")
        root.parent.chmod(0o755)
        for path in root.parent.rglob("*"):
            os.chown(path, user, user)
        server = Server(root, "start", env=env, through=[sys.executable, str(ORDINARY), str(user), walls])
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module", params=TIERS)
def tier(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    with serving(request.param, PROJECT) as server:
        yield request.param, server


@pytest.mark.parametrize("client", ["urllib", "curl"])
def test_loops_are_stopped(tier: tuple[str, Server], client: str) -> None:
    _, server = tier
    assert server.get(f"/loop/{client}").body == b"17", server.lines[-20:]


def test_functions_work(tier: tuple[str, Server]) -> None:
    name, server = tier
    found = server.get("/works").json()
    assert found.pop("user") == USER if "ordinary" in name else found.pop("user") not in (0, USER)
    assert found == {"child": "42\n", "helper": "helper", "more": "more"}


def test_functions_import_what_they_ask_for(tier: tuple[str, Server]) -> None:
    _, server = tier
    assert server.get("/lamp").body == b"1.0", server.lines[-20:]


def test_one_line_says_what_is_missing(tier: tuple[str, Server]) -> None:
    name, server = tier
    server.get("/works")
    told = [line for line in server.lines if "isolation falls short" in line]
    gateways = 1 + sum("gateway has ended" in line for line in server.lines)  # each says it once
    assert len(told) == gateways and len(set(told)) == 1 and "lampyr doctor" in told[0]
    assert ("no room" in told[0]) == ("container" in name)


def test_secrets_and_other_files_cannot_be_read(tier: tuple[str, Server]) -> None:
    _, server = tier
    for path in (server.root / ".env", server.root / ".lampyr/lock", "/etc/shadow", "/dev/vda", Path(__file__)):
        answer = server.get(f"/attacker/files?path={path}")
        assert next(iter(answer.json().values())).startswith("refused"), answer.body


def test_the_servers_door_stays_shut(tier: tuple[str, Server]) -> None:
    _, server = tier
    assert server.rows()
    found = server.get(f"/attacker/knock?state={server.root / '.lampyr'}").json()
    assert found["key"].startswith("refused"), found
    assert found["said"].startswith("refused") or "the key is not that of this server" in found["said"], found


def test_nothing_can_be_written_but_temporary_files(tier: tuple[str, Server]) -> None:
    _, server = tier
    for path in (server.live / "helper.py", server.live / "new.py", "/new", "/var/tmp/new", "/usr/new"):
        answer = server.get(f"/attacker/writes?path={path}")
        assert next(iter(answer.json().values())).startswith("refused"), answer.body


def test_processes_outside_are_out_of_reach(tier: tuple[str, Server]) -> None:
    _, server = tier
    gateway = server.find("lampyr.gateway").pid
    files = [f"/proc/{gateway}/{name}" for name in ("environ", "mem", "root/etc/hostname")]
    found = server.get("/attacker/files?" + "&".join(f"path={path}" for path in files)).json()
    assert all(one.startswith("refused") for one in found.values()), found
    kills = server.get(f"/attacker/processes?pid={gateway}").json()["kills"]
    assert kills["victim"].startswith("refused"), kills
    calls = server.get("/attacker/calls").json()
    assert set(calls.values()) == {"refused EPERM"}
    privileges = server.get("/attacker/privileges").json()
    assert privileges["become root"].startswith("refused")
    assert {int(privileges["status"][name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}


def test_no_odd_sockets(tier: tuple[str, Server]) -> None:
    _, server = tier
    found = server.get("/attacker/families").json()
    assert all(errors == ["refused EAFNOSUPPORT"] for errors in found.values()), found


def test_the_servers_processes_and_the_users_files_and_sockets_are_out_of_reach(tier: tuple[str, Server]) -> None:
    name, server = tier
    gateway = server.find("lampyr.gateway")
    top = server.root.parent
    file = server.root / "secret.txt"
    file.write_text("x")
    file.chmod(0o600)
    os.chown(file, server.root.stat().st_uid, server.root.stat().st_gid)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(top / "bus"))
        (top / "bus").chmod(0o600)
        os.chown(top / "bus", file.stat().st_uid, file.stat().st_gid)
        bus.listen()
        other = subprocess.Popen(["sleep", "60"], user=file.stat().st_uid, group=file.stat().st_gid)
        asked = f"pid={gateway.pid}&process={other.pid}&file={file}&socket={top / 'bus'}"
        asked += f"&own={server.live / 'helper.py'}"
        found = server.get(f"/attacker/neighbours?{asked}").json()
        other.kill()
        other.wait()
    (top / "bus").unlink()
    mode = found.pop("mode")
    assert file.stat().st_mode & 0o777 == 0o600, mode
    times = found.pop("times")
    assert file.stat().st_mtime > 1, times
    if name != "ordinary container":  # there is a namespace, or a user id of its own: it means nobody else
        found.pop("priority of the user")
    if name == "ordinary":  # there are namespaces, and these are of them
        for one in ("watch", "memory", "names of memory"):
            found.pop(one)
    assert all(one.startswith("refused") for one in found.values()), found
    assert gateway.nice() == os.nice(0) and len(gateway.cpu_affinity() or ()) == os.cpu_count()


@pytest.mark.parametrize("name", TIERS)
def test_a_placeholder_is_worthless_outside(name: str) -> None:
    with serving(name, {"app/calls/route.py": CALLS, "lampyr.toml": "[providers.echo]\n"}) as server:
        found = server.get("/calls").json()
        assert (found["own"], found["child"]) == (200, "200\n"), server.lines[-20:]
        code = CALL + "print(call(*sys.argv[1:]))"
        for user in {0, 12345, USER if "ordinary" in name else 0}:
            through = [sys.executable, str(ORDINARY), str(user), "open"]
            command = [*through, sys.executable, "-c", code, found["base"], found["key"][::-1]]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.stdout == "401\n", (user, done)


def test_with_the_broker_only_there_is_no_network(tier: tuple[str, Server]) -> None:
    _, server = tier
    found = server.get(f"/cut?how=network&port={server.port}")
    assert found.status == 200, found.body
    assert all(one.startswith("refused") for one in found.json().values()), found.json()


def test_who_ends_his_own_snapshot_gets_another(tier: tuple[str, Server]) -> None:
    _, server = tier
    server.get("/attacker/parent")
    until(lambda: server.get("/attacker/descriptors").status == 200, "the function to be back")
    assert server.get("/works").status == 200


@pytest.mark.parametrize("name", descriptors.FUNCTIONS)
def test_the_descriptors_of_a_function_are_these_and_no_others(tier: tuple[str, Server], name: str) -> None:
    descriptors.check(tier[1], name)


def test_nobody_passes_for_a_process_of_somebody_else(tier: tuple[str, Server]) -> None:
    _, server = tier
    server.get("/works")
    before = {one: server.find(one).pid for one in ("lampyr.gateway", "lampyr.control", "lampyr.vault")}
    time.sleep(3.5)
    until_s = time.monotonic() + 7  # one that does not leave is killed after 5 s
    while time.monotonic() < until_s:
        server.get("/usurper")
        assert server.get("/works").status == 200
        time.sleep(0.1)
    assert {one: server.find(one).pid for one in before} == before
    assert "gateway has ended" not in "\n".join(server.lines)


def test_memory_is_bounded(tier: tuple[str, Server]) -> None:
    _, server = tier
    assert server.get("/attacker/memory_bomb").error == "FUNCTION_OUT_OF_MEMORY"


def test_a_dead_gateway_leaves_nothing_behind(tier: tuple[str, Server]) -> None:
    _, server = tier
    first = server.get("/attacker/daemon")
    assert first.status == 200, "\n".join([first.body.decode(), *server.lines[-60:]])
    others, old = {server.find(f"lampyr.{one}").pid for one in ("control", "vault")}, server.processes()
    server.find("lampyr.gateway").kill()
    until(lambda: {one.pid for one in old if not ended(one)} == others, "everything of it to be gone")
    answer = server.get("/works")
    assert answer.status == 200, "\n".join([answer.body.decode(), *server.lines[-60:]])


def test_doctor_says_whether_other_processes_can_be_seen(tier: tuple[str, Server]) -> None:
    name, server = tier
    gateway = server.find("lampyr.gateway").pid
    found = server.get(f"/attacker/processes?pid={gateway}").json()
    seen = gateway in found["seen"] or "lampyr.gateway" in found["command lines"]
    promises = {one["name"]: one for one in json.loads(doctor(name, "--json").stdout)}
    assert promises["processes of others"]["holds"] == (not seen), found


def doctor(tier: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    user, walls = ("54321" if "ordinary" in tier else "0"), ("container" if "container" in tier else "open")
    command = [sys.executable, str(ORDINARY), user, walls, sys.executable, "-m", "lampyr", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_doctor_names_the_fallbacks(tier: tuple[str, Server]) -> None:
    name, _ = tier
    done = doctor(name, "--strict")
    assert done.returncode == 1 and "lampyr: error:" in done.stderr and "hint:" in done.stderr, done
    told = doctor(name, "--strict", "--json")
    assert told.returncode == 1 and told.stderr, told
    falls_short = {one["name"] for one in json.loads(told.stdout) if not one["holds"]}
    if "ordinary" in name:
        assert {"memory", "process limit", "processor"} <= falls_short
    if "container" in name:
        assert {"temporary files", "processes of others", "children"} <= falls_short

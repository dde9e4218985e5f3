"""A hostile dependency in one function tries to get at another one, at the platform and at the machine."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

import pytest
from hostile import SECRET, facts, host_pid
from serving import Server

needs = pytest.mark.needs


def refused(found: dict[str, object]) -> bool:
    return all(str(one).startswith("refused") for one in found.values())


@needs("room")
def test_files_of_others_and_of_the_platform_are_not_there(server: Server) -> None:
    victim = server.get("/victim").json()
    pid = host_pid(server, victim["who"])
    gateway = server.find("lampyr.gateway").pid
    paths = [
        *(str(server.root / name) for name in (".env", ".git/config", ".lampyr/lock", ".lampyr/tmp", "../..")),
        *("/etc/shadow", "/root/.bash_history", "/dev/vda", "/dev/mem", "/proc/kcore", "/proc/kmsg", victim["file"]),
        *(f"/proc/{one}/{file}" for one in (pid, gateway) for file in ("environ", "mem", "maps", "root/etc/passwd")),
    ]
    asked = "&".join(f"path={quote(path)}" for path in paths)
    answer = server.get(f"/attacker/files?{asked}")
    found = answer.json()
    assert list(found) == paths and refused(found), found
    assert SECRET.encode() not in answer.body


@needs("room")
def test_a_file_with_secrets_that_appears_later_is_not_there_either(server: Server) -> None:
    server.get("/attacker/descriptors")
    server.write(".env.production.local", f"LATER_TOKEN={SECRET}\n")
    (server.live / "app/later.txt").write_text("for everybody")
    paths = [str(server.root / ".env.production.local"), str(server.live / "app/later.txt")]
    found = server.get(f"/attacker/files?path={paths[0]}&path={paths[1]}").json()
    assert found == {paths[0]: "refused ENOENT", paths[1]: "got b'for everybody'"}


@needs("room")
def test_the_project_is_read_only_and_so_is_everything_else(server: Server) -> None:
    own = [str(server.live / name) for name in ("app/attacker/[how]/route.py", "notes.txt", "new.py", "app/new.py")]
    paths = [
        *own,
        "/usr/bin/new",
        "/etc/passwd",
        "/new",
        "/dev/new",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
    ]
    found = server.get("/attacker/writes?" + "&".join(f"path={quote(path)}" for path in paths)).json()
    assert list(found) == paths and refused(found), found


@needs("room")
def test_every_mount_is_read_only_but_for_temporary_files(server: Server) -> None:
    found = facts(server, "mounts")
    writable = {place for place, options in found.items() if "ro" not in str(options).split(",")}
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    assert writable == {"/tmp", "/dev/shm", "/proc", *devices}, found
    assert all("nosuid" in str(options) for place, options in found.items() if place not in devices), found


@needs("room")
def test_nothing_leads_out_of_the_room(server: Server) -> None:
    server.get("/victim")
    found = facts(server, "escapes")
    assert all(str(found[name]).startswith("refused") for name in ("link", "chroot", "root", "up")), found
    assert found["mine"] == ["app", "notes.txt"]
    assert "home" not in found["there"] and "shared-by-name" not in found["tmp"]


@needs("room")
def test_other_processes_cannot_be_seen_or_signalled(server: Server) -> None:
    victim = server.get("/victim").json()
    found = facts(server, "processes", pid=host_pid(server, victim["who"]))
    assert set(found["seen"]) <= {1, found["own"]}, found
    assert "lampyr" not in str(found["command lines"])
    assert found["kills"] == {"victim": "refused ESRCH", "parent": "refused ESRCH"}
    assert server.get("/victim").json()["who"] == victim["who"]


@needs("room")
def test_a_function_cannot_end_or_read_its_own_snapshot(server: Server) -> None:
    found = facts(server, "init")
    assert refused(found), found
    assert facts(server, "privileges")


@needs("users")
def test_every_function_has_a_user_of_its_own(server: Server) -> None:
    victim = server.get("/victim").json()["user"]
    ids = facts(server, "privileges")["ids"]
    assert isinstance(ids, list) and len(set(ids)) == 1
    assert len({0, os.getuid(), victim, ids[0]}) == len({0, os.getuid()}) + 2


def test_no_privileges_are_left_and_none_can_be_gained(server: Server) -> None:
    found = facts(server, "privileges")
    status = found["status"]
    assert isinstance(status, dict)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], found["dumpable"], found["core"]) == ("1", 0, 0)
    assert found["become root"] == "refused EPERM" and found["own identity"] == "refused EPERM"
    assert found["su"] != 0


@needs("users")
def test_executing_a_file_brings_no_capability_back(server: Server) -> None:
    status = facts(server, "privileges")["status"]
    assert isinstance(status, dict) and int(status["CapBnd"], 16) == 0


@needs("seccomp")
def test_the_kernels_dangerous_calls_are_refused(server: Server) -> None:
    found = facts(server, "calls")
    assert len(found) > 35 and set(found.values()) == {"refused EPERM"}, found


@needs("seccomp")
def test_no_door_leads_to_a_new_namespace(server: Server) -> None:
    assert facts(server, "spaces") == {"clone": "refused EPERM", "clone3": "refused ENOSYS", "child": "EPERM"}


@needs("seccomp")
def test_no_socket_leads_around_the_network_namespace_or_to_the_kernels_corners(server: Server) -> None:
    found = facts(server, "families")
    assert all(errors == ["refused EAFNOSUPPORT"] for errors in found.values()), found


@needs("room", "memory")
def test_system_v_memory_is_bounded_and_goes_with_the_instance(server: Server) -> None:
    for _ in range(3):
        found = facts(server, "ipc")
        assert found["left"]["shm"] == 0, found
        assert found["MiB"] <= 64 and found["queues"] <= 16, found
        server.get("/attacker/leave")


@needs("room")
def test_devices_cannot_be_made_and_only_harmless_ones_are_there(server: Server) -> None:
    found = facts(server, "devices")
    assert found["block"] == found["memory"] == "refused EPERM"
    assert found["null"] == "got None"
    harmless = {"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"}
    assert set(found["there"]) == harmless


def test_only_its_own_descriptors_are_inherited(server: Server) -> None:
    found = facts(server, "descriptors")
    kinds = {re.sub(r"\d+", "", str(one)) for one in found.values()}
    assert kinds <= {"/dev/null", "pipe:[]", "socket:[]", "anon_inode:[eventpoll]", "/proc//fd"}, found
    assert sum(str(one).startswith("socket") for one in found.values()) <= 4, found


@needs("room", "landlock")
def test_no_socket_of_ours_or_of_another_function_can_be_reached(server: Server) -> None:
    door = server.get("/victim").json()["door"]
    assert facts(server, "doors", door=door) == {"files": [], "opened": []}
    state = server.root / ".lampyr"
    assert (state / "door").is_socket() and (state / "door.key").is_file()
    assert facts(server, "knock", state=state) == {"key": "refused ENOENT", "said": "refused ENOENT"}


@needs("network")
def test_a_function_with_the_broker_only_has_no_network(server: Server) -> None:
    found = server.get(f"/attacker/network?port={server.port}").json()
    assert (found["tcp"], found["udp"]) == ("got None", "got 1")
    found = server.get(f"/cut?how=network&port={server.port}").json()
    assert len(found) == 5 and refused(found), found

"""What isolation promises, and which mechanism holds each promise on this machine: for `doctor` and a line at start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

ROOT = "start Lampyr as root, in a container with --privileged, or allow user namespaces"
LANDLOCK = "use a Linux kernel from 5.13 on with Landlock among its security modules"
GROUPS = "start it as root, or give it a group of its own: systemd-run --user --scope -p Delegate=yes lampyr start"


class Promise(NamedTuple):
    """`name` is the word for it in the line at start; `holds` is false on a fallback."""

    name: str
    promise: str
    mechanism: str
    holds: bool
    hint: str


def promises(means: Mapping[str, Any], missing: Mapping[str, str], *, told: bool) -> list[Promise]:
    """Every promise. `means` is what runtime.sandbox has found, `missing` are the controllers without groups.

    `told`: the kernel tells whose a connection is (node/ends.py).
    """
    made = [*_of_the_room(means), *_of_the_kernel(means), *_of_groups(means, missing), _of_loops(told=told)]
    return [one._replace(hint="" if one.holds else one.hint) for one in made]


def lacking(means: Mapping[str, Any], missing: Mapping[str, str], *, told: bool) -> str:
    """The names of the promises that a fallback keeps, and the reasons found; empty when all hold."""
    names = dict.fromkeys(one.name for one in promises(means, missing, told=told) if not one.holds)
    why = means["missing"].get("room")
    return ", ".join(names) + (f" (no room: {why})" if names and why else "")


def _of_the_room(means: Mapping[str, Any]) -> list[Promise]:
    room, landlock, users = means["room"], means["landlock"], means["users"]
    space = "namespaces of an ordinary user" if means["user_namespace"] else "namespaces"
    apart = f"mount {space}: a root folder of its own, read-only"
    files = apart if room else f"Landlock, version {landlock}" if landlock else "file permissions"
    if room:
        alone = f"PID {space}" + (" and a user id for each function" if users else "")
    elif users:
        alone = "a user id for each function: names of others can be seen, and no more"
    else:
        alone = "Landlock, version 6 or newer" if landlock >= 6 else "nothing"
    ends = f"PID {space}: the snapshot is their init" if room else "the snapshot adopts and ends orphans"
    walled = landlock >= 4 and means["seccomp"]
    fallback = "Landlock (TCP) and seccomp (everything else)" if walled else "nothing"
    network = "network namespaces" if means["network"] else fallback
    tmp = "a tmpfs of half its memory" if room else "a folder of its own, without a limit"
    return [
        Promise(
            "files", "a function sees its project, read-only, and no secrets, state or files of others",
            files, bool(room or landlock), f"{ROOT}; or {LANDLOCK}",
        ),
        Promise("temporary files", "temporary files are private, limited and gone with the instance", tmp, room, ROOT),
        Promise(
            "processes of others", "a function cannot see, signal, trace or read other processes",
            alone, room, ROOT,
        ),
        Promise("children", "no process that an instance started outlives it", ends, room, ROOT),
        Promise(
            "broker only", 'network = "broker": no network but the broker',
            network, bool(means["network"] or walled), f"{ROOT}; or use Linux 6.7 or newer with Landlock and seccomp",
        ),
    ]  # fmt: skip


def _of_the_kernel(means: Mapping[str, Any]) -> list[Promise]:
    seccomp, landlock = means["seccomp"], means["landlock"]
    linux = sys.platform == "linux"
    return [
        Promise(
            "privileges", "a function can gain no privileges, not even by executing files",
            "no_new_privs, empty capability sets" if means["no_new_privileges"] else "nothing",
            means["no_new_privileges"], "use Linux",
        ),
        Promise(
            "system calls", "no mounts, devices, tracing, kernel modules, keyrings, BPF or io_uring",
            "seccomp" if seccomp else "nothing", seccomp, "use a Linux kernel with seccomp filters",
        ),
        Promise(
            "second wall", "what the file system's walls might miss is refused by a second one",
            f"Landlock, version {landlock}" if landlock else "nothing", bool(landlock), LANDLOCK,
        ),
        Promise(
            "leaks", "memory is in no core file and cannot be read by processes of the same user",
            "dumpable 0, RLIMIT_CORE 0" if linux else "RLIMIT_CORE 0", linux, "use Linux",
        ),
        Promise("descriptors", "a function that never closes files runs out alone", "RLIMIT_NOFILE", True, ""),
    ]  # fmt: skip


def _of_groups(means: Mapping[str, Any], missing: Mapping[str, str]) -> list[Promise]:
    def by(controller: str, fallback: str) -> tuple[str, bool, str]:
        if controller not in missing and sys.platform == "linux":
            return f"control group ({controller})", True, ""
        return fallback, False, f"{missing.get(controller, 'use Linux')}: {GROUPS}"

    tasks = "RLIMIT_NPROC, together with its siblings" if means["users"] else "nothing"
    if means["user_namespace"]:
        tasks = "RLIMIT_NPROC, together with all functions"
    return [
        Promise("memory", "an instance has the memory of its setting, and ends alone", *by("memory", "RLIMIT_DATA")),
        Promise("process limit", "a fork or thread bomb stays in its instance", *by("pids", tasks)),
        Promise("processor", "a busy function leaves the others their share", *by("cpu", "the scheduler's fairness")),
    ]


def _of_loops(*, told: bool) -> Promise:
    return Promise(
        "loops", "functions that call one another without end are stopped with 508",
        "socket diagnostics (sock_diag): the kernel tells who has connected"
        if told else "the header x-lampyr-depth, where functions send it on",
        told, "use a Linux kernel with inet_diag and tcp_diag, and allow netlink sockets (NETLINK_SOCK_DIAG)",
    )  # fmt: skip

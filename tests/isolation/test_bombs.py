"""Bombs and floods hit the instance that made them, and the platform says which limit it was."""

from __future__ import annotations

import threading

import pytest
from hostile import host_pid
from serving import Answer, Serve, Server, ended, until

pytestmark = pytest.mark.alone

needs = pytest.mark.needs


def explode(server: Server, how: str) -> Answer:
    """The answer to a bomb, during which the other function goes on answering from the same process."""
    who = server.get("/victim").json()["who"]
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(server.get(f"/bomb/{how}")))
    thread.start()
    while thread.is_alive():
        answer = server.get("/victim")
        assert answer.status == 200 and answer.json()["who"] == who
        thread.join(0.05)
    server.get("/bomb/leave")  # the next bomb has an instance to itself
    return answers[0]


def its_processes(server: Server) -> int:
    return len(server.processes())


@needs("memory")
def test_who_needs_too_much_memory_is_told_so(server: Server) -> None:
    answer = explode(server, "memory_bomb")
    assert (answer.status, answer.error) == (507, "FUNCTION_OUT_OF_MEMORY")
    server.log(rf"{answer.headers['x-lampyr-id']}: the process ended: it needed more memory than it may use")
    assert server.get("/bomb/descriptors").status == 200


def test_memory_is_bounded_without_control_groups_too(server: Server) -> None:
    assert server.get("/bomb/memory_bomb").error == "FUNCTION_OUT_OF_MEMORY"


@needs("memory")
def test_a_child_that_needs_too_much_memory_ends_and_its_parent_goes_on(server: Server) -> None:
    assert explode(server, "child_memory_bomb").json() in ({"child": -9}, {"child": 1})


@needs("room", "pids")
def test_a_fork_bomb_ends_at_the_deadline_with_everything_it_made(server: Server) -> None:
    before = its_processes(server)
    answer = explode(server, "fork_bomb")
    assert answer.status in (504, 507), answer.body  # its processes need memory too
    until(lambda: its_processes(server) <= before + 1, "the bomb to be gone")
    assert server.get("/bomb/descriptors").status == 200


@needs("pids")
def test_processes_are_counted(server: Server) -> None:
    answer = explode(server, "forks")
    if answer.status == 200:
        assert answer.json()["error"] == "EAGAIN" and 10 < answer.json()["made"] < 1024
        server.log(r"/bomb/\[how\]: it has reached the limit of \d+ processes and threads")
    else:
        assert answer.error == "FUNCTION_OUT_OF_MEMORY"


@needs("pids")
def test_threads_are_counted(server: Server) -> None:
    made = explode(server, "thread_bomb").json()
    assert 10 < made["made"] < 2048 and "thread" in made["error"]


CROWDED = """
import os, threading, time
from lampyr import after

rate_limit = "none"
threading.stack_size(1 << 18)
stay = threading.Event()


def crowd():
    time.sleep(1)  # when the import is over, it has a limit of its own no more
    while True:
        try:
            threading.Thread(target=stay.wait, daemon=True).start()
        except RuntimeError:
            time.sleep(0.01)


threading.Thread(target=crowd, daemon=True).start()


def GET():
    after(os._exit, 0)  # the next call needs a process of its own
    return "here"
"""


@needs("pids")
def test_who_is_refused_for_a_limit_of_its_function_is_not_sent_to_those_of_the_machine(serve: Serve) -> None:
    server = serve({"app/crowded/route.py": CROWDED, "app/other/route.py": "def GET(): return 'other'"})
    until(lambda: server.get("/crowded").status == 503, "the snapshot's group to be full")
    server.log(
        r"/crowded: no instance can be started: the function has reached the limit of \d+ .*\nhint: let an import"
    )
    assert server.get("/other").body == b"other"


@needs("room")
def test_temporary_files_have_a_limit_and_go_with_the_instance(server: Server) -> None:
    flood = explode(server, "disk_flood").json()
    assert flood["error"] == "ENOSPC" and flood["written"] <= 64 << 20
    many = explode(server, "file_flood").json()
    assert many["error"] == "ENOSPC" and many["made"] <= 64 * 1024
    assert server.get("/attacker/escapes").status == 200


@needs("room")
def test_memory_with_a_name_goes_with_the_last_instance(server: Server) -> None:
    assert explode(server, "named_memory").json() == {"error": "ENOSPC", "left": []}
    assert explode(server, "named_memory").json() == {"error": "ENOSPC", "left": []}


def test_descriptors_run_out_alone(server: Server) -> None:
    flood = explode(server, "descriptor_flood").json()
    assert flood["error"] == "EMFILE" and flood["made"] <= 4096


def test_a_log_flood_does_not_grow_the_gateway(server: Server) -> None:
    gateway = server.find("lampyr.gateway")
    before = gateway.memory_info().rss
    assert explode(server, "log_flood").json()["lines"] > 0
    assert gateway.memory_info().rss - before < 64 << 20


def test_a_line_without_an_end_does_not_grow_the_gateway(server: Server) -> None:
    gateway = server.find("lampyr.gateway")
    before = gateway.memory_info().rss
    assert explode(server, "long_line").status == 200
    assert gateway.memory_info().rss - before < 64 << 20


@needs("room", "pids")
def test_a_fork_bomb_after_the_response_ends_with_all_it_made(server: Server) -> None:
    before = its_processes(server)
    assert server.get("/bomb/after_bomb").status == 200
    server.log(r"^GET /bomb/after_bomb 200 (timeout|crashed) .*after\(\)")
    until(lambda: its_processes(server) <= before + 1, "the bomb to be gone")
    assert server.get("/victim").status == 200 and server.get("/bomb/descriptors").status == 200


@needs("room")
def test_who_ends_with_a_long_lineage_does_not_stop_the_programs_of_other_instances(server: Server) -> None:
    until(lambda: server.get("/bomb/descriptors").status == 200, "the bombs before to be gone")
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(server.get("/bomb/child")))
    asking.start()
    for _ in range(3):
        assert server.get("/bomb/lineage").error == "FUNCTION_CRASHED"
    asking.join()
    assert (answers[0].status, answers[0].body) == (200, b"done\n")


def test_a_busy_function_leaves_time_to_others(server: Server) -> None:
    assert explode(server, "spin").status == 200


def test_a_daemon_does_not_outlive_the_server_or_its_instance(server: Server) -> None:
    who = server.get("/bomb/daemon").json()["who"]
    instance = server.who_is(who)
    assert instance is not None and host_pid(server, who)
    daemons = until(lambda: instance.children(), "the daemon to have come back to its instance")
    instance.kill()
    until(lambda: all(ended(one) for one in daemons), "the daemon to be gone")

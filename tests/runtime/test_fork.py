"""A fork that leaves out what CPython does around it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is os.fork")


def told(program: str) -> Any:
    """What `program` prints as JSON, in a process of its own."""
    head = "import json, os, sys, threading\nfrom lampyr.runtime import fork\n"
    code = head + textwrap.dedent(program)
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60).stdout)


WHOLE = """
    calls = []
    sys.addaudithook(lambda event, _: event == "os.fork" and calls.append(event))
"""
ASK = """
    pid = fork.fork()
    if pid == 0:
        print(json.dumps(calls))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_a_process_with_one_thread_is_forked_by_itself() -> None:
    assert told(WHOLE + ASK) == []


def test_with_another_thread_python_does_all_it_does() -> None:
    assert told(
        WHOLE + "    held = threading.Event()\n    threading.Thread(target=held.wait, daemon=True).start()\n" + ASK
    ) == ["os.fork"]


@pytest.mark.parametrize(("who", "whole"), [("acme.pool", True), ("concurrent.futures.thread", False)])
def test_what_a_package_has_registered_is_run(who: str, whole: bool) -> None:
    registers = f"""
    fork.heed_hooks()
    module = {{"os": os, "calls": calls, "__name__": "{who}"}}
    exec("os.register_at_fork(after_in_child=lambda: calls.append('hook'))", module)
"""
    assert told(WHOLE + registers + ASK) == (["os.fork", "hook"] if whole else [])


def test_hooks_of_a_compiled_module_are_known_while_it_is_imported() -> None:
    """It has no frame of its own."""
    registers = """
    import functools, importlib._bootstrap, posix
    fork.heed_hooks()
    for register in (os.register_at_fork, posix.register_at_fork):
        named = functools.partial(register, after_in_child=lambda: calls.append("hook"))
        importlib._bootstrap._call_with_frames_removed(named)
"""
    assert told(WHOLE + registers + ASK) == ["os.fork", "hook", "hook"]


def test_a_fork_that_a_package_has_put_in_the_place_of_pythons_is_used() -> None:
    replaces = """
    real, os.fork = os.fork, lambda: calls.append("gevent.fork") or real()
"""
    assert told(WHOLE + replaces + ASK) == ["gevent.fork", "os.fork"]


def test_a_child_is_what_it_is_after_an_ordinary_fork() -> None:
    """Its threads, locks, imports, ids and collector work, as does a fork of its own."""
    child = """
    import asyncio, concurrent.futures, importlib, logging, gc
    lock = threading.RLock()
    pid = fork.fork()
    if pid:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with lock, concurrent.futures.ThreadPoolExecutor(4) as pool:
        threads = sorted(pool.map(lambda n: n * n, range(8)))
    logging.warning("locks")
    gc.collect()
    facts = {
        "threads": threads,
        "main": threading.current_thread() is threading.main_thread(),
        "id": threading.main_thread().native_id == os.getpid(),
        "loop": asyncio.run(asyncio.to_thread(lambda: 7)),
        "import": importlib.import_module("colorsys").__name__,
    }
    inner = fork.fork()
    if inner == 0:
        os._exit(3)
    facts["inner"] = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    ordinary = os.fork()
    if ordinary == 0:
        os._exit(4)
    facts["ordinary"] = os.waitstatus_to_exitcode(os.waitpid(ordinary, 0)[1])
    print(json.dumps(facts))
"""
    assert told(child) == {
        "threads": [0, 1, 4, 9, 16, 25, 36, 49],
        "main": True,
        "id": True,
        "loop": 7,
        "import": "colorsys",
        "inner": 3,
        "ordinary": 4,
    }


def test_what_the_system_refuses_is_an_error() -> None:
    refused = """
    import resource
    from lampyr.runtime import kernel  # nobody else may read where it lies
    os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    try:
        pid = fork.fork()
        if pid == 0:
            os._exit(0)
    except OSError as error:
        print(json.dumps(error.errno))
"""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may not fork")
    assert told(refused) == errno.EAGAIN

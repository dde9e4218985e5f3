"""The life of the model process: idle, it ends; called again, it is started on the same socket; orphaned, it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

Start = Callable[..., Any]


def test_it_ends_when_idle_and_a_caller_meanwhile_is_served_by_the_next(start: Start) -> None:
    first = start(echo=True, idle_seconds=0.1)
    assert first.client.models.list().data[0].id == "echo"
    first.client.close()
    assert first.process.wait(60) == 0
    second = start(echo=True, listener=first.listener)
    assert second.client.models.list().data[0].id == "echo"


def test_it_does_not_end_while_it_answers(start: Start) -> None:
    running = start(echo=True, idle_seconds=0.1)
    words = "word " * 250
    with running.client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": words}], stream=True
    ) as stream:
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert answer.endswith(words.strip())


def test_it_loads_nothing_before_a_question(start: Start) -> None:
    running = start()
    assert running.client.models.list().data
    maps = [one.path for one in psutil.Process(running.process.pid).memory_maps()]
    assert not [path for path in maps if "llamacpp" in path or path.endswith(".gguf")]


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "import socket, subprocess, lampyr.model as model\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "command = model.command(listener.fileno(), echo=True)\n"
        "print(subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=2).pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

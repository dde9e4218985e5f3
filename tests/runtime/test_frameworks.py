"""The rehearsal of FastAPI and Starlette: it answers, it leaves nothing behind, and it spares who has been changed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from lampyr.runtime import frameworks


def run(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["fastapi", "starlette"])
def test_every_request_of_a_rehearsal_is_answered(name: str) -> None:
    text = f"""
        import {name}, {name}.applications, {name}.responses, {name}.routing
        from lampyr.runtime import frameworks, wire
        module, kind = frameworks.APPLICATIONS["{name}"]
        app = frameworks._application("{name}", getattr({name}.applications, kind))
        said = []

        async def noted(scope, receive, send):
            async def note(message):
                said.append(message.get("status") or message["type"])
                await send(message)
            await app(scope, receive, note)

        frameworks._answer(noted, frameworks.TIMES)
        print(said.count(200), set(one for one in said if isinstance(one, int)), "lifespan.shutdown.complete" in said)
    """
    assert run(text) == f"{2 * frameworks.TIMES} {{200}} True"


def test_it_leaves_no_thread_no_descriptor_and_no_loop() -> None:
    text = """
        import asyncio, os, threading, fastapi
        from lampyr.runtime import frameworks
        before = os.listdir("/proc/self/fd")
        frameworks.rehearse()
        same = len(os.listdir("/proc/self/fd")) == len(before)
        print(same, threading.active_count(), sorted(frameworks._rehearsed))
    """
    assert run(text) == "True 1 ['fastapi', 'starlette']"


def test_what_somebody_has_changed_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert frameworks.is_untouched(FastAPI) and frameworks.is_untouched(Starlette)

    class Traced(FastAPI):
        pass

    assert not frameworks.is_untouched(Traced)

    async def patched(self: Starlette, scope: object, receive: object, send: object) -> None: ...

    monkeypatch.setattr(Starlette, "__call__", patched)
    assert not frameworks.is_untouched(Starlette) and not frameworks.is_untouched(FastAPI)

"""A rehearsal of FastAPI and Starlette, before anything is forked from the process that has imported one of them.

The first request to an application costs 6 ms more than the next: modules are imported when first used, patterns are
compiled, and bytecode learns (see rehearsal). An application made here, of the framework's own classes alone, answers a
few requests; no code of the user's runs, and nothing of it is left but what the framework has learned.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from typing import Any

from lampyr.runtime import wire
from lampyr.runtime.instance import Instance
from lampyr.runtime.program import Program
from lampyr.runtime.rehearsal import KINDS

# A request takes 2 ms at first, and a snapshot is not to be held up by this for long.
TIMES = 16
# What takes longer than this has gone wrong.
MAX_TURNS = 200
APPLICATIONS = {"fastapi": ("fastapi.applications", "FastAPI"), "starlette": ("starlette.applications", "Starlette")}
_HEADERS = [b"host", b"localhost", b"accept", b"*/*", b"content-type", b"application/json"]

_rehearsed: set[str] = set()  # by this process or one it was forked from


def rehearse(*, again: bool = False) -> None:
    """Rehearse the frameworks that have been imported and that nobody has changed; each once, or a little `again`."""
    for name, (module, kind) in APPLICATIONS.items():
        made = getattr(sys.modules.get(module), kind, None)
        if made is not None and (again or name not in _rehearsed) and is_untouched(made):
            _rehearsed.update(APPLICATIONS)  # FastAPI's applications are Starlette's
            with suppress(Exception):  # it is another version than those that are known: a first request takes longer
                _answer(_application(name, made), len(KINDS) if again else TIMES)
            if again:
                return


def is_untouched(kind: type[Any]) -> bool:
    """Whether all that objects of `kind` do is what the framework wrote: no tracing that would take us for a client."""
    code = [one for each in kind.__mro__[:-1] for one in vars(each).values() if hasattr(one, "__code__")]
    return all(str(one.__module__).partition(".")[0] in APPLICATIONS for one in (*kind.__mro__[:-1], *code))


def _application(name: str, kind: type[Any]) -> Any:
    async def say() -> dict[str, str]:
        return {"said": "hi"}

    async def hear(body: dict[str, str]) -> dict[str, str]:
        return body

    if name == "fastapi":
        app = kind(openapi_url=None)
        app.get("/")(say)
        app.post("/")(hear)
        return app
    responses, routing = sys.modules["starlette.responses"], sys.modules["starlette.routing"]

    async def answer(request: Any) -> Any:
        return responses.JSONResponse(await request.json() if request.method == "POST" else {"said": "hi"})

    return kind(routes=[routing.Route("/", answer, methods=["GET", "POST"])])


def _answer(app: Any, times: int) -> None:
    program = Program("", {}, app, 1)
    for turn in range(times):
        ours, theirs = socket.socketpair(socket.AF_UNIX, KINDS[turn % len(KINDS)])
        ours.setblocking(False)
        instance = Instance(program)
        instance.open(theirs)
        ours.recv(wire.PACKET_BYTES)  # hello
        for stream, (method, body) in enumerate(((b"GET", b""), (b"POST", b'{"said": "hello"}')), 1):
            length = [b"content-length", b"%d" % len(body)] if body else []
            head = [b"0", method, b"http://localhost", b"/", b"", b"", b"127.0.0.1", b"10.000", b"", *_HEADERS, *length]
            ours.send(wire.head_frame(stream, wire.REQUEST_WHOLE, head, body))
            _turn_until_answered(instance.loop, ours)
        assert instance.application is not None
        instance.loop.run_until_complete(instance.application.shutdown())
        instance.loop.close()
        ours.close()
        theirs.close()


def _turn_until_answered(loop: asyncio.AbstractEventLoop, ours: socket.socket) -> None:
    for _ in range(MAX_TURNS):
        loop.call_soon(loop.stop)
        loop.run_forever()
        try:
            ours.recv(wire.PACKET_BYTES)
            return
        except BlockingIOError:
            continue
    raise TimeoutError

"""SPEC 2: a client that leaves ends its handler within a second; `finally` and `after` run."""

from __future__ import annotations

import time

import pytest
from contract import Place
from serving import WHO, ended, until

# The contract's second, and more for a machine that is busy; no handler here ends by itself in that time.
SOON_S = 6.0

LEAVE = """
    import asyncio
    import inspect
    import os
    import time

    import marks
    from lampyr import Response, after, sse
    {setting}

    async def ticks(req, mark):
        try:
            while True:
                marks.reach(f"{{mark}}-began")
                yield "tick "
                await asyncio.sleep(0.02)
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    async def waits(req, mark):
        try:
            yield "first"
            marks.reach(f"{{mark}}-began")
            await asyncio.sleep(8)
            marks.reach(f"{{mark}}-went-on")
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    def sync_ticks(req, mark):
        try:
            while True:
                marks.reach(f"{{mark}}-began")
                yield "tick "
                time.sleep(0.02)
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    async def answers(req, mark):
        try:
            marks.reach(f"{{mark}}-began")
            await asyncio.sleep(8)
            return "late"
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    async def listens(req, mark):
        marks.reach(f"{{mark}}-began")
        try:
            await req.signal.wait()
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    async def reads(req, mark):
        marks.reach(f"{{mark}}-began")
        try:
            await req.bytes()
        finally:
            marks.reach(f"{{mark}}-ended", req.signal.aborted)

    async def swallows(req, mark):
        while True:
            try:
                marks.reach(f"{{mark}}-began", {who})
                await asyncio.sleep(8)
            except BaseException:
                marks.reach(f"{{mark}}-ended", req.signal.aborted)

    MAKE = {{
        "ticks": ticks, "waits": waits, "sync-ticks": sync_ticks, "answers": answers, "listens": listens,
        "reads": reads, "swallows": swallows, "sse": lambda req, mark: sse(waits(req, mark)),
    }}

    async def GET(req):
        mark = req.query.get("mark")
        after(marks.reach, f"{{mark}}-after")
        result = MAKE[req.params["how"]](req, mark)
        return await result if inspect.iscoroutine(result) else result

    POST = GET
"""
ROUTES = {
    "leave/[how]": LEAVE.format(setting="", who=WHO),
    "stay/[how]": """
        import asyncio

        import marks
        from lampyr import after

        on_disconnect = "continue"

        async def parts(req, mark):
            for number in range(200):
                yield "x" * 50_000
                marks.reach(f"{mark}-began")
                if number == 0:
                    await marks.gate(f"{mark}-left")
            marks.reach(f"{mark}-finished")

        async def GET(req):
            mark = req.query.get("mark")
            after(marks.reach, f"{mark}-after")
            if req.params["how"] == "stream":
                return parts(req, mark)
            marks.reach(f"{mark}-began")
            await marks.gate(f"{mark}-left")
            await asyncio.sleep(0.1)
            marks.reach(f"{mark}-finished")
            return "nobody reads this"
    """,
}


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("how", ["ticks", "sync-ticks", "waits", "sse", "answers", "listens", "reads"])
def test_a_handler_is_cancelled_when_its_client_leaves(place: Place, mark: str, how: str, reset: bool) -> None:
    """While it streams, while it waits inside a stream, before it has answered, while it reads."""
    line = place.open(
        f"/leave/{how}?mark={mark}",
        {"Content-Length": "10"} if how == "reads" else {},
        "POST" if how == "reads" else "GET",
    )
    place.reached(f"{mark}-began")
    if reset:
        line.sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 s
    left = time.time()
    line.close()
    assert place.reached(f"{mark}-ended") == "True"
    assert (place.marks / f"{mark}-ended").stat().st_mtime - left < SOON_S
    place.reached(f"{mark}-after")
    assert not (place.marks / f"{mark}-went-on").exists()


def test_a_handler_that_does_not_listen_is_ended(place: Place, mark: str) -> None:
    line = place.open(f"/leave/swallows?mark={mark}")
    process = place.server.who_is(place.reached(f"{mark}-began"))
    assert process is not None
    line.close()
    assert place.reached(f"{mark}-ended") == "True"
    until(lambda: ended(process), "its process to end")


def test_a_client_that_leaves_with_much_unread(place: Place, mark: str) -> None:
    """Nothing is read, so nothing can be written: leaving is noticed all the same."""
    line = place.line(receive_bytes=4096)
    line.ask("GET", f"/{place.runtime}/leave/ticks?mark={mark}")
    place.reached(f"{mark}-began")
    left = time.time()
    line.close()
    assert place.reached(f"{mark}-ended") == "True"
    assert (place.marks / f"{mark}-ended").stat().st_mtime - left < SOON_S


@pytest.mark.parametrize("how", ["stream", "answer"])
def test_on_disconnect_continue(place: Place, mark: str, how: str) -> None:
    line = place.open(f"/stay/{how}?mark={mark}")
    place.reached(f"{mark}-began")
    line.close()
    place.let(f"{mark}-left")
    place.reached(f"{mark}-finished")
    place.reached(f"{mark}-after")


def test_the_log_says_client_closed(place: Place, mark: str) -> None:
    line = place.open(f"/leave/answers?mark={mark}")
    place.reached(f"{mark}-began")
    line.close()
    place.server.log(rf"GET /{place.runtime}/leave/answers.* client_closed ")

"""SPEC 3: the answers the platform gives itself, and what every response carries."""

from __future__ import annotations

import pytest
from contract import Place
from serving import until

ROUTES = {
    "wrong/[how]": """
        import asyncio
        import os
        import signal

        password = "do not tell"

        async def GET(req):
            match req.params["how"]:
                case "raises":
                    raise LookupError(password)
                case "none":
                    return None
                case "group":
                    raise ExceptionGroup(password, [ValueError(1)])
                case "cancelled":
                    raise asyncio.CancelledError
                case "exit":
                    raise SystemExit(3)
                case "dies":
                    os._exit(1)
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "memory":
                    raise MemoryError
            return "fine"
    """,
    "waits": """
        import asyncio

        max_duration = 1

        async def GET(req):
            await asyncio.sleep(20 if req.query.get("long") else 0)
            return "in time"
    """,
    "spins": """
        max_duration = 1

        def GET(req):
            while req.query.get("long"):
                pass
            return "in time"
    """,
    "blocks": """
        max_duration = 1

        async def GET(req):
            while req.query.get("long"):
                pass
            return "in time"
    """,
}


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("raises", 500, "FUNCTION_INVOCATION_FAILED"),
        ("none", 500, "FUNCTION_INVOCATION_FAILED"),
        ("group", 500, "FUNCTION_INVOCATION_FAILED"),
        ("cancelled", 500, "FUNCTION_INVOCATION_FAILED"),
        ("exit", 502, "FUNCTION_CRASHED"),
        ("dies", 502, "FUNCTION_CRASHED"),
        ("killed", 502, "FUNCTION_CRASHED"),
        ("memory", 507, "FUNCTION_OUT_OF_MEMORY"),
    ],
)
def test_a_function_that_goes_wrong(place: Place, how: str, status: int, code: str) -> None:
    """Nothing of the user's is in the answer, but for the traceback in development; the next request is served."""
    reply = place.ask(f"/wrong/{how}")
    assert (reply.status, reply.error, reply["content-type"]) == (status, code, "application/json")
    if how == "exit":
        place.server.log(rf"{reply['x-lampyr-id']} \| SystemExit: 3$")
    error = reply.json()["error"]
    assert ("traceback" in error) == (
        place.command == "dev" and how in ("raises", "none", "group", "cancelled", "memory")
    )
    if place.command == "start":
        for word in (b"do not tell", b"LookupError", b"route.py", b"Traceback", str(place.server.root).encode()):
            assert word not in reply.body
    assert place.ask("/wrong/not").body == b"fine"


@pytest.mark.parametrize("path", ["/waits", "/spins", "/blocks"])
def test_a_deadline(place: Place, path: str) -> None:
    until(lambda: place.ask(path).status == 200, "an instance")  # the first start of all may take longer than a second
    reply = place.ask(f"{path}?long=1")
    code = "EDGE_FUNCTION_INVOCATION_TIMEOUT" if place.runtime == "edge" else "FUNCTION_INVOCATION_TIMEOUT"
    assert (reply.status, reply.error) == (504, code)
    error = reply.json()["error"]
    assert (error["limit"], error["limit_ms"]) == ("max_duration", 1000)
    assert 1000 <= error["elapsed_ms"] < 15_000
    place.said(error["id"], rf'.*{place.runtime}{path}/route\.py", line \d+,? in GET')


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/wrong/" + "x" * 8300, {}, 414, "URL_TOO_LONG"),
        ("/wrong/x?" + "x" * 8300, {}, 414, "URL_TOO_LONG"),
        ("/wrong/x", {f"x-{number}": "1" for number in range(101)}, 431, "REQUEST_HEADER_TOO_LARGE"),
        ("/wrong/x", {"x-big": "x" * 33_000}, 431, "REQUEST_HEADER_TOO_LARGE"),
        ("/wrong/x", {"Expect": "more"}, 417, "EXPECTATION_FAILED"),
        ("/wrong/x", {"x-bad": "a\x01b"}, 400, "BAD_REQUEST"),
        ("/wrong/x", {"x bad": "ab"}, 400, "BAD_REQUEST"),
        ("/wrong/x", {"Host": "a b"}, 400, "BAD_REQUEST"),
        ("/wrong/x", {"Upgrade": "websocket", "Connection": "upgrade"}, 400, "BAD_REQUEST"),
    ],
)
def test_limits_of_the_front_door(place: Place, path: str, headers: dict[str, str], status: int, code: str) -> None:
    reply = place.ask(path, headers=headers)
    assert (reply.status, reply.error) == (status, code)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/wrong/" + "x" * 7900, {}, 200),
        ("/wrong/x", {f"x-{number}": "1" for number in range(98)}, 200),
        ("/wrong/x", {"x-big": "x" * 32_000}, 200),
    ],
)
def test_up_to_the_limits(place: Place, path: str, headers: dict[str, str], status: int) -> None:
    assert place.ask(path, headers=headers).status == status


def test_forwarded_headers_are_not_believed(place: Place) -> None:
    reply = place.ask("/wrong/x", headers={"X-Forwarded-For": "1.2.3.4", "X-Lampyr-Id": "forged"})
    assert reply["x-lampyr-id"] != "forged"


def test_cold_then_warm(place: Place) -> None:
    place.ask("/wrong/dies")
    timings = [place.ask("/wrong/x")["server-timing"] or "" for _ in range(2)]
    assert timings[0].split(";desc=")[1].startswith("cold") and "desc=warm" in timings[1]

"""SPEC 2, Helpers: what raises through a handler, what runs after it, and what belongs to the current request."""

from __future__ import annotations

import pytest
from contract import Place, express

HELPERS = """
    from lampyr import Response, cookies, env, headers, not_found, permanent_redirect, redirect

    def through(call, *arguments):
        try:
            call(*arguments)
        except Exception as error:
            return f"caught {error!r}"

    def deep(call, *arguments):
        try:
            through(call, *arguments)
        finally:
            cookies().set("left", "yes")
"""
ROWS = {
    "redirect": "through(redirect, '/there?a=1')",
    "permanent": "through(permanent_redirect, 'https://example.com/')",
    "missing": "through(not_found)",
    "deep": "deep(redirect, '/deep')",
    "bad": "through(redirect, '/a\\r\\nx-evil: 1')",
    "cookies-get": "str([cookies().get('a'), cookies().get('b'), cookies().has('a')])",
    "cookies-set": "str([cookies().set('a', '2', max_age=5), cookies().get('a')])",
    "cookies-delete": "str([cookies().delete('a'), cookies().get('a')])",
    "headers": "str([headers().get('X-Mine'), headers().get('x-other')])",
    "env": "env('GREETING')",
    "env-default": "env('NOT_THERE', 'a default')",
    "env-missing": "env('NOT_THERE')",
}
ROUTES = {
    "helpers/[row]": express(ROWS.items(), HELPERS),
    "thread": """
        from lampyr import cookies, headers, redirect

        def GET(req):
            try:
                redirect("/" + cookies().get("a") + headers()["x-mine"])
            except Exception:
                return "caught"
    """,
    "after/[how]": """
        import asyncio
        import time

        import marks
        from lampyr import after, redirect, sse

        async def slow(mark):
            await marks.gate(f"{mark}-go")
            marks.note(f"{mark}-log", "1-async")

        def sync(mark, word):
            time.sleep(0.01)
            marks.note(f"{mark}-log", word)

        def fails(mark):
            marks.note(f"{mark}-log", "3-fails")
            raise ValueError("inside after")

        async def more(mark):
            marks.note(f"{mark}-log", "4-more")
            after(marks.reach, f"{mark}-end")

        async def parts(mark):
            yield "a"
            marks.note(f"{mark}-log", "0-stream")
            yield "b"

        async def GET(req):
            mark = req.query.get("mark")
            after(slow, mark)
            after(sync, mark, word="2-sync")
            after(fails, mark)
            after(more, mark)
            match req.params["how"]:
                case "answers":
                    return "answered"
                case "streams":
                    return parts(mark)
                case "raises":
                    raise RuntimeError("an error")
                case "redirects":
                    redirect("/elsewhere")
                case "nonsense":
                    return None
                case "cut":
                    async def broken():
                        yield "a"
                        raise RuntimeError("in the middle")
                    return broken()
                case "left":
                    marks.reach(f"{mark}-began")
                    await asyncio.sleep(5)
    """,
    "hooks": """
        import os

        from lampyr import after_restore, before_snapshot

        PIDS = {}

        @before_snapshot
        def before():
            PIDS["before"] = PIDS.get("before", []) + [os.getpid()]

        @after_restore
        def restored():
            PIDS["after"] = PIDS.get("after", []) + [os.getpid()]

        async def GET():
            return {**PIDS, "pid": os.getpid(), "parent": os.getppid()}
    """,
}


@pytest.mark.parametrize(
    ("row", "status", "location"),
    [
        ("redirect", 307, "/there?a=1"),
        ("permanent", 308, "https://example.com/"),
        ("deep", 307, "/deep"),
        ("missing", 404, None),
    ],
)
def test_except_exception_does_not_catch(place: Place, row: str, status: int, location: str | None) -> None:
    reply = place.ask(f"/helpers/{row}", "POST")
    assert (reply.status, reply["location"]) == (status, location)
    assert reply.error == ("NOT_FOUND" if status == 404 else None)
    assert reply["set-cookie"] == ("left=yes; Path=/" if row == "deep" else None)


def test_a_redirect_that_cannot_be_sent_is_an_ordinary_error(place: Place) -> None:
    reply = place.ask("/helpers/bad")
    assert (reply.status, reply["x-evil"], reply.body[:17]) == (200, None, b"caught ValueError")


def test_helpers_in_the_thread_of_a_sync_handler(place: Place) -> None:
    reply = place.ask("/thread", headers={"Cookie": "a=x", "X-Mine": "y"})
    assert (reply.status, reply["location"]) == (307, "/xy")


@pytest.mark.parametrize(
    ("row", "body", "cookie"),
    [
        ("cookies-get", "['1', None, True]", None),
        ("cookies-set", "[None, '2']", "a=2; Path=/; Max-Age=5"),
        ("cookies-delete", "[None, None]", "a=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        ("headers", "['is here', None]", None),
        ("env", "hello", None),
        ("env-default", "a default", None),
    ],
)
def test_of_the_current_request(place: Place, row: str, body: str, cookie: str | None) -> None:
    reply = place.ask(f"/helpers/{row}", headers={"Cookie": "a=1", "X-Mine": "is here"})
    assert (reply.status, reply.body.decode(), reply["set-cookie"]) == (200, body, cookie)


def test_a_missing_variable_is_named_in_the_log(place: Place) -> None:
    reply = place.ask("/helpers/env-missing")
    assert reply.error == "FUNCTION_INVOCATION_FAILED"
    place.server.log(rf"{reply['x-lampyr-id']} \| .*NOT_THERE is not set")


@pytest.mark.parametrize(
    ("how", "status"),
    [("answers", 200), ("streams", 200), ("raises", 500), ("redirects", 307), ("nonsense", 500), ("cut", 200)],
)
def test_after_runs_in_order_when_the_response_has_ended(place: Place, mark: str, how: str, status: int) -> None:
    """The client has everything before the first of them may begin; one that fails does not stop the next."""
    with place.open(f"/after/{how}?mark={mark}") as line:
        reply = line.reply()
        assert (reply.status, reply.whole) == (status, how != "cut")
        place.let(f"{mark}-go")
    place.reached(f"{mark}-end")
    words = place.reached(f"{mark}-log").split()
    assert words == ["0-stream"] * (how == "streams") + ["1-async", "2-sync", "3-fails", "4-more"]
    place.said(reply["x-lampyr-id"], "ValueError: inside after")


def test_after_runs_when_the_client_has_left(place: Place, mark: str) -> None:
    line = place.open(f"/after/left?mark={mark}")
    place.reached(f"{mark}-began")
    line.close()
    place.let(f"{mark}-go")
    place.reached(f"{mark}-end")
    assert place.reached(f"{mark}-log").split() == ["1-async", "2-sync", "3-fails", "4-more"]


def test_hooks_around_the_snapshot(place: Place) -> None:
    said = place.ask("/hooks").json()
    assert said["before"] == [said["parent"]] and said["after"] == [said["pid"]]

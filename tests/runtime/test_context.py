"""The helpers: redirect, permanent_redirect, not_found, after, cookies, headers, env."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import lampyr
from lampyr import Context, Request, Response, after, cookies, env, headers, not_found, permanent_redirect, redirect
from lampyr.runtime import wire


async def in_task() -> None:
    await asyncio.create_task(nested())


async def nested() -> None:
    redirect("/login?next=%2F")


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(nested())
        group.create_task(asyncio.sleep(60))


async def in_gather() -> None:
    await asyncio.gather(nested(), asyncio.sleep(0))


async def in_thread() -> None:
    await asyncio.to_thread(redirect, "/login?next=%2F")


INTERRUPTED: dict[str, Callable[[], Any]] = {
    "called": nested, "task": in_task, "group": in_group, "gather": in_gather, "thread": in_thread,
}  # fmt: skip


@pytest.mark.parametrize("how", INTERRUPTED)
def test_redirect_is_not_caught_by_except_exception(serve: Callable[..., Any], how: str) -> None:
    async def handler() -> str:
        try:
            await INTERRUPTED[how]()
        except Exception:
            return "caught"
        return "not raised"

    answer = serve(POST=handler).call("POST")
    assert (answer.status, answer.fields, answer.body) == (307, [("location", "/login?next=%2F")], b"")


def test_interrupts_in_sync_handlers(serve: Callable[..., Any]) -> None:
    def handler(request: Request) -> str:
        try:
            if request.query.get("there"):
                permanent_redirect("https://there.test/é")
            not_found()
        except Exception:
            return "caught"

    gateway = serve(GET=handler)
    answer = gateway.call("GET", "/?there=1")
    assert (answer.status, answer.fields) == (308, [("location", "https://there.test/%C3%A9")])
    answer = gateway.call()
    assert answer.status == 404 and answer.headers["x-lampyr-error"] == "NOT_FOUND"
    assert answer.json()["error"] == {"code": "NOT_FOUND", "message": "There is nothing at this address.", "id": "id-2"}


def test_cookies_set_before_an_interrupt_are_sent(serve: Callable[..., Any]) -> None:
    async def handler() -> None:
        cookies().set("session", "1", httponly=True)
        redirect("/")

    assert ("set-cookie", "session=1; Path=/; HttpOnly") in serve(GET=handler).call().fields


def test_a_group_with_another_error_is_a_failure(serve: Callable[..., Any]) -> None:
    async def fail() -> None:
        raise OSError("also")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(nested())
            group.create_task(fail())

    kind, text = serve(GET=handler).call().failure
    assert kind == "raised" and "OSError: also" in text


def test_a_redirect_that_cannot_be_sent_is_an_ordinary_error(serve: Callable[..., Any]) -> None:
    async def handler() -> str:
        try:
            redirect("/a\r\nb: c")
        except ValueError:
            return "refused"

    assert serve(GET=handler).call().text == "refused"


# cookies() and headers() ------------------------------------------------------------------------------------------


async def deep() -> dict[str, Any]:
    jar = cookies()
    before = jar.all()
    jar.set("b", "é")
    jar.delete("a")
    return {"before": before, "b": cookies().get("b"), "a": cookies().has("a"), "agent": headers().get("User-Agent")}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_cookies_and_headers_of_the_current_request(serve: Callable[..., Any], kind: str) -> None:
    def sync() -> Any:
        return asyncio.run(deep())

    gateway = serve(GET=deep if kind == "async" else sync)
    answer = gateway.call("GET", "/", {"cookie": "a=1", "user-agent": "t"})
    assert answer.json() == {"before": {"a": "1"}, "b": "é", "a": False, "agent": "t"}
    sent = [value for name, value in answer.fields if name == "set-cookie"]
    assert sent == ["b=%C3%A9; Path=/", "a=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]


def test_requests_do_not_see_each_other(serve: Callable[..., Any]) -> None:
    async def handler(request: Request) -> str:
        await asyncio.sleep(0.01)
        return headers().get("x-n", "")

    gateway = serve(GET=handler)
    streams = [gateway.send("GET", "/", {"x-n": str(n)}) for n in range(50)]
    assert [gateway.answer(stream).text for stream in streams] == [str(n) for n in range(50)]


def test_cookies_can_be_set_until_the_first_byte(serve: Callable[..., Any]) -> None:
    async def handler() -> AsyncIterator[str]:
        cookies().set("a", "1")
        yield "x"
        try:
            cookies().set("b", "2")
        except RuntimeError as error:
            yield str(error)

    answer = serve(GET=handler).call()
    assert answer.headers["set-cookie"] == "a=1; Path=/" and b"cannot be changed" in answer.chunks[1]


# after ------------------------------------------------------------------------------------------------------------


def test_after_runs_in_order_when_the_response_has_ended(serve: Callable[..., Any]) -> None:
    async def slow(name: str) -> None:
        await asyncio.sleep(0.02)
        print(name)

    def sync(name: str, *, end: str) -> None:
        print(name + end + str(threading.current_thread() is threading.main_thread()))

    def nests() -> None:
        print("three")
        after(print, "five")

    async def handler(request: Request, context: Context) -> str:
        after(slow, "one")
        after(sync, "two", end="!")
        context.after(nests)
        after(slow("four"))
        print("handler")
        return "answer"

    gateway = serve(GET=handler)
    answer = gateway.call()
    assert answer.kinds == [wire.AFTER, wire.ANSWER, wire.DONE]
    assert gateway.log.split() == ["handler", "one", "two!False", "three", "four", "five"]


async def raises(request: Request) -> None:
    after(print, "after an error", flush=True)
    raise OSError("failed")


async def interrupted(request: Request) -> None:
    after(print, "after not_found", flush=True)
    not_found()


async def streams(request: Request) -> AsyncIterator[str]:
    yield "a"
    after(print, "after a stream", flush=True)


async def stream_fails(request: Request) -> AsyncIterator[str]:
    yield "a"
    after(print, "after a broken stream", flush=True)
    raise OSError


@pytest.mark.parametrize(
    ("handler", "kinds", "log"),
    [
        (raises, [wire.AFTER, wire.FAIL, wire.DONE], "after an error"),
        (interrupted, [wire.AFTER, wire.ANSWER, wire.DONE], "after not_found"),
        (streams, [wire.HEAD, wire.CHUNK, wire.AFTER, wire.END, wire.DONE], "after a stream"),
        (stream_fails, [wire.HEAD, wire.CHUNK, wire.AFTER, wire.FAIL, wire.DONE], "after a broken stream"),
    ],
)
def test_after_whatever_happens(serve: Callable[..., Any], handler: Any, kinds: list[int], log: str) -> None:
    gateway = serve(GET=handler)
    assert gateway.call().kinds == kinds and log in gateway.log


def test_errors_in_after_are_logged_and_the_rest_runs(serve: Callable[..., Any]) -> None:
    def broken() -> None:
        raise OSError("broken after")

    def late_cookie() -> None:
        cookies().set("a", "1")

    async def handler() -> str:
        after(broken)
        after(late_cookie)
        after(not_found)
        after(print, "last", flush=True)
        return "fine"

    gateway = serve(GET=handler)
    answer = gateway.call()
    assert answer.text == "fine" and "set-cookie" not in answer.headers
    for text in ("OSError: broken after", "cookies cannot be changed any more", "last"):
        assert text in gateway.log


def test_after_outlives_a_client_that_leaves(serve: Callable[..., Any]) -> None:
    async def late() -> None:
        async with asyncio.timeout(5):  # counts from zero, whatever was cancelled before
            await asyncio.sleep(0.05)
        print("after the client left", flush=True)

    async def handler() -> None:
        after(late)
        await asyncio.sleep(3600)

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.frame(stream, wire.CANCEL, b"client")
    assert gateway.answer(stream).kinds == [wire.AFTER, wire.FAIL, wire.DONE]
    assert "after the client left" in gateway.log


@pytest.mark.parametrize(("reason", "cut"), [(b"client", False), (b"deadline", True)])
def test_what_ends_after(serve: Callable[..., Any], reason: bytes, cut: bool) -> None:
    async def late() -> None:
        await asyncio.sleep(0.1)
        print("finished", flush=True)

    async def handler() -> str:
        after(late)
        after(print, "next", flush=True)
        return "x"

    gateway = serve(GET=handler)
    stream = gateway.send()
    gateway.wait(stream, wire.ANSWER)
    gateway.frame(stream, wire.CANCEL, reason)
    assert gateway.answer(stream).kinds[-1] == wire.DONE
    assert ("finished" in gateway.log, "cut off by max_duration" in gateway.log) == (not cut, cut)


def test_after_of_an_invocation_that_has_ended(serve: Callable[..., Any]) -> None:
    tasks: list[asyncio.Task[None]] = []  # kept: a loop holds its tasks weakly

    async def later() -> None:
        await asyncio.sleep(0.05)
        try:
            after(print, "never")
        except RuntimeError as error:
            print(error, flush=True)

    async def handler() -> str:
        tasks.append(asyncio.create_task(later()))
        return "x"

    gateway = serve(GET=handler)
    gateway.call()
    assert "never" not in gateway.wait_for_log("its invocation had ended")


def test_after_takes_functions(serve: Callable[..., Any]) -> None:
    async def handler() -> str:
        try:
            after("not a function")  # type: ignore[arg-type]  # so that it is refused
        except TypeError as error:
            return str(error)
        return "it was taken"

    assert "takes a function, not str" in serve(GET=handler).call().text


# env, and outside a request ---------------------------------------------------------------------------------------


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPYR_TEST_NAME", "value")
    monkeypatch.delenv("LAMPYR_TEST_MISSING", raising=False)
    assert env("LAMPYR_TEST_NAME") == "value" and env("LAMPYR_TEST_MISSING", None) is None
    assert env("LAMPYR_TEST_MISSING", "-") == "-"
    with pytest.raises(KeyError, match=r"^the environment variable LAMPYR_TEST_MISSING is not set for this function"):
        env("LAMPYR_TEST_MISSING")


OUTSIDE: dict[str, Callable[[], Any]] = {
    "redirect": lambda: redirect("/"),
    "permanent_redirect": lambda: permanent_redirect("/"),
    "not_found": not_found,
    "after": lambda: after(print),
    "cookies": cookies,
    "headers": headers,
}


@pytest.mark.parametrize("helper", OUTSIDE)
def test_outside_a_request(helper: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^{helper}\(\) was called outside a request"):
        OUTSIDE[helper]()


def test_every_public_name() -> None:
    for name in lampyr.__all__:
        assert getattr(lampyr, name) is not None
    assert set(lampyr.__all__) <= set(dir(lampyr))
    with pytest.raises(AttributeError):
        _ = lampyr.nothing_of_this_name
    assert isinstance(Response(), lampyr.Response)

"""ASGI applications as functions: FastAPI, Starlette, Litestar and others run unmodified (ASGI 3.0, HTTP 2.3).

https://asgi.readthedocs.io/en/latest/specs/www.html. WebSockets are not carried: a request for one is answered 400.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from lampyr.errors import BadRequest, ClientDisconnect
from lampyr.runtime import stack, wire
from lampyr.runtime.headers import field_name, field_value
from lampyr.runtime.response import with_cookies

if TYPE_CHECKING:
    from lampyr.runtime.invocation import Invocation

Message = MutableMapping[str, Any]
Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# What an application may make of `http.disconnect` before it is cancelled; its `finally` has the rest of the second.
DISCONNECT_GRACE_S = 0.3
SHUTDOWN_S = 5.0


class StartupFailed(Exception):
    """The application's lifespan said that it cannot serve."""


class Application:
    """One ASGI application in one instance, with its lifespan."""

    def __init__(self, app: App, mount: int | None) -> None:
        self.failure: StartupFailed | None = None
        self.failure_told = False  # to a request
        self._app = app
        self._mount = mount
        self._state: dict[str, Any] = {}
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._lifespan: asyncio.Task[None] | None = None

    # Its life ----------------------------------------------------------------------------------------------------

    async def startup(self) -> None:
        """Run the lifespan's startup; an application that has none is fine (as uvicorn's `--lifespan auto`)."""
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._answer = asyncio.get_running_loop().create_future()
        self._lifespan = asyncio.create_task(self._run_lifespan())
        try:
            await self._answer
        except StartupFailed as failure:
            self.failure = failure

    async def shutdown(self) -> None:
        """Run the lifespan's shutdown, within SHUTDOWN_S."""
        if self._lifespan is None or self._lifespan.done():
            return
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self._lifespan], timeout=SHUTDOWN_S)

    async def _run_lifespan(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._messages.get, self._lifespan_said)
        except BaseException as error:
            # Before it answered, this is how an application says that it knows no lifespan.
            if self._answer.done():
                stack.print_trace(error)
        finally:
            if not self._answer.done():
                self._answer.set_result(None)

    async def _lifespan_said(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._answer.set_result(None)
        elif kind == "lifespan.startup.failed":
            self._answer.set_exception(StartupFailed(message.get("message") or "the lifespan's startup failed"))
        elif kind == "lifespan.shutdown.failed":
            print(message.get("message") or "the lifespan's shutdown failed", flush=True)

    # A request ----------------------------------------------------------------------------------------------------

    async def serve(self, invocation: Invocation) -> None:
        """Let the application answer one request."""
        if self.failure is not None:
            # The next instance may have more luck; this one takes nothing more.
            invocation.instance.retiring = True
            self.failure_told = True
            raise self.failure
        scope = self._scope(invocation)
        cycle = Cycle(invocation, asyncio.get_running_loop())
        invocation.on_disconnect = cycle.disconnect
        try:
            await self._app(scope, cycle.receive, cycle.send)
        except BaseException as error:
            if not cycle.complete:
                raise
            # It has answered, perhaps with a 500 page of its own; the error is for the log.
            cycle.finish()
            if not invocation.cancelled:
                stack.print_trace(error)
            return
        finally:
            cycle.close()
        if not cycle.complete:
            if invocation.cancelled:
                raise asyncio.CancelledError
            raise RuntimeError("the ASGI application returned before its response was complete")
        cycle.finish()

    def _scope(self, invocation: Invocation) -> Scope:
        fields = invocation.request._fields
        scheme, _, host = fields[wire.ORIGIN].decode("latin-1").partition("://")
        path = fields[wire.PATH]
        headers = fields[wire.HEADERS :]
        if b"sec-websocket-key" in headers[::2]:
            raise BadRequest("WebSockets are not carried here; server-sent events and streamed responses are.")
        root = b"/".join(path.split(b"/")[: self._mount + 1]) if self._mount else b""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": invocation.request.method,
            "scheme": scheme,
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": fields[wire.QUERY],
            "root_path": unquote_to_bytes(root).decode("utf-8", "replace"),
            "headers": list(zip(headers[::2], headers[1::2], strict=True)),
            "client": (invocation.request.ip, 0),
            "server": _server(scheme, host),
            "state": self._state.copy(),
            "extensions": {},
        }


def _server(scheme: str, host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return name.strip("[]"), int(port)
    return host.strip("[]"), 443 if scheme == "https" else 80


class Cycle:
    """`receive` and `send` of one request."""

    def __init__(self, invocation: Invocation, loop: asyncio.AbstractEventLoop) -> None:
        self.complete = False  # the application has sent the last of its body
        self._invocation = invocation
        self._loop = loop
        self._over = asyncio.Event()  # the client has left, or has everything
        self._cancel: asyncio.TimerHandle | None = None
        self._body_read = False
        self._fields: list[bytes] | None = None
        self._last: bytes | None = None  # the end of the response, held back for one tick

    def disconnect(self, deadline: bool) -> None:
        """The client has left, or the time is up."""
        self._over.set()
        task = self._invocation.task
        if task is not None:
            self._cancel = self._loop.call_later(0.0 if deadline else DISCONNECT_GRACE_S, task.cancel)

    def close(self) -> None:
        """The application has returned: what runs now is `after`, and no business of this cycle."""
        if self._cancel is not None:
            self._cancel.cancel()

    async def receive(self) -> Message:
        if not self._body_read and not self._over.is_set():
            try:
                piece = await self._invocation.request._body.next()
            except ClientDisconnect:
                return {"type": "http.disconnect"}
            self._body_read = not piece or self._invocation.request._body.data is not None
            return {"type": "http.request", "body": piece, "more_body": not self._body_read}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if self._fields is not None:
                raise RuntimeError("the ASGI application began its response twice")
            self._fields = _head(message)
        elif kind == "http.response.body":
            if self._fields is None or self.complete:
                raise RuntimeError(
                    f"the ASGI application sent {kind} {'after' if self.complete else 'before'} its time"
                )
            await self._body(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"the ASGI application sent a message of unknown type {kind!r}")

    async def _body(self, data: bytes, more: bool) -> None:
        invocation = self._invocation
        if self._over.is_set():
            return
        if invocation.request.method == "HEAD":
            data = b""
        if not more and not invocation.context.begun and len(data) <= wire.WINDOW_BYTES:
            self._hold(data)
            return
        begins = not invocation.context.begun
        if begins:
            invocation.head(self._head_fields())
        if data or begins:
            await invocation.write(data)
        if not more:
            self._hold(b"")

    def _hold(self, data: bytes) -> None:
        """The response is complete. Whether work is left after it shows when the application has returned or waits."""
        self.complete = True
        self._last = data
        self._loop.call_soon(self._release)

    def _release(self) -> None:
        """The application is still at work, a background task perhaps: the client shall not wait for it."""
        if self._last is not None:
            self._invocation.announce_after()
            self.finish()

    def finish(self) -> None:
        """Send the end of the response, if it is not out yet."""
        data, self._last = self._last, None
        if data is None:
            return
        if self._invocation.context.begun:
            self._invocation.finish(wire.END)
        else:
            self._invocation.answer(self._head_fields(), data)
        self._over.set()

    def _head_fields(self) -> list[bytes]:
        assert self._fields is not None
        return with_cookies(self._fields, None, self._invocation.context.set_cookies)


def _head(message: Message) -> list[bytes]:
    """The head of a response; what could end a line is refused, as in Response."""
    status = message["status"]
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"the ASGI application answered with status {status!r}; 200 to 599 can be sent")
    fields = [b"%d" % status]
    headers: Iterable[tuple[bytes, bytes]] = message.get("headers") or ()
    for name, value in headers:
        fields += (field_name(bytes(name).decode("latin-1")), field_value(bytes(value).decode("latin-1")))
    return fields

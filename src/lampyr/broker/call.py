"""One call of a function to a provider, from its head to the last byte of the answer."""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING

import httpcore2

from lampyr.broker import wire
from lampyr.broker.desk import Caller, Desk, Refused
from lampyr.broker.usage import Trim, Usage
from lampyr.gateway.exchange import Exchange

if TYPE_CHECKING:
    from lampyr.broker.log import Log

MAX_BODY_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.25
_FAILURES = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError)
_UNPRINTABLE = re.compile(r"[^!-~]")


class Call:
    """The receiver of an exchange. When its function leaves, the connection to the provider is closed at once."""

    def __init__(
        self, exchange: Exchange, host: str, desk: Desk, pool: httpcore2.AsyncConnectionPool, log: Log
    ) -> None:
        self._exchange = exchange
        self._host = host
        self._desk = desk
        self._pool = pool
        self._log = log
        self._pieces = [exchange.body]
        self._bytes = len(exchange.body)
        self._whole = asyncio.Event()
        self._drained = asyncio.Event()
        self._caller: Caller | None = None
        self._model = "-"
        self._usage = Usage(b"")
        self._trim: Trim | None = None
        self._status = 0
        if exchange.complete:
            self._whole.set()
        exchange.receiver = self
        self._task = asyncio.get_running_loop().create_task(self._run())

    # --- the exchange says

    def body(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes <= MAX_BODY_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()
            self._whole.set()  # what follows is not wanted

    def body_end(self) -> None:
        self._whole.set()

    def left(self) -> None:
        self._task.cancel()

    def drained(self) -> None:
        self._drained.set()

    # --- the call

    async def _run(self) -> None:
        ended = ""
        try:
            await self._go()
        except Refused as refused:
            self._refuse(refused)
        except _FAILURES as error:
            self._fail(error)
        except asyncio.CancelledError:
            ended = " client_closed"
        except Exception as error:
            self._fail(error)
        finally:
            self._tell(ended)

    async def _go(self) -> None:
        exchange = self._exchange
        name, rest = wire.provider_of(exchange.target)
        if exchange.host != self._host:
            raise Refused(421, "invalid_request_error", "The broker answers at its own address only.")
        self._caller = await self._desk.caller(exchange, name)
        provider = self._caller.provider
        scheme, host, port, target = wire.address(provider, exchange.method, rest)
        if provider.secret and not provider.key:
            message = (
                f"There is no {provider.secret}, which holds the key of {name}: lampyr secrets set {provider.secret}"
            )
            raise Refused(401, "authentication_error", message)
        exchange.invite()
        await self._whole.wait()
        if self._bytes > MAX_BODY_BYTES:
            raise Refused(413, "request_too_large", f"The request is larger than {MAX_BODY_BYTES} bytes.")
        body = b"".join(self._pieces)
        asked = wire.question(provider, body)
        model = asked.get("model")
        self._model = _UNPRINTABLE.sub("?", model[:80]) if isinstance(model, str) and model else "-"
        if (fuller := wire.with_usage(provider, rest.partition("?")[0], asked)) is not None:
            body, self._trim = fuller, Trim()
        url = httpcore2.URL(scheme=scheme, host=host, port=port, target=target)
        headers = wire.request_headers(provider, exchange.headers)
        async with asyncio.timeout(provider.timeout):
            await self._try(httpcore2.Request(exchange.method, url, headers=_framed(headers, url, body), content=body))

    async def _try(self, request: httpcore2.Request) -> None:
        """Send it, again where nothing of an answer has come."""
        assert self._caller is not None
        request.extensions["timeout"] = {"connect": CONNECT_TIMEOUT_S}
        for attempt in range(self._caller.provider.retries, -1, -1):
            try:
                response = await self._pool.handle_async_request(request)
            except _FAILURES:
                if not attempt:
                    raise
            else:
                try:
                    if not attempt or response.status not in wire.PASSING:
                        await self._pass_on(response)
                        return
                finally:
                    await response.aclose()
            await asyncio.sleep(FIRST_RETRY_S * 2 ** (self._caller.provider.retries - attempt))

    async def _pass_on(self, response: httpcore2.Response) -> None:
        headers = {name.lower(): value for name, value in response.headers}
        if 300 <= response.status < 400 or headers.get(b"content-encoding", b"identity") != b"identity":
            what = "a redirect, which is not followed" if response.status < 400 else "something compressed"
            raise Refused(502, "api_error", f"The provider has answered with {what}.")
        self._status = response.status
        self._usage = Usage(headers.get(b"content-type", b""))
        masker, exchange = self._desk.masker, self._exchange
        lines = [(name, masker.mask(value)) for name, value in wire.response_headers(response.status, response.headers)]
        stream, trim = masker.stream(), self._trim if response.status == 200 else None
        exchange.start(response.status, lines)
        async for piece in response.aiter_stream():
            self._usage.feed(piece)
            exchange.write(stream.feed(trim.feed(piece) if trim else piece))
            while not exchange.writable:
                self._drained.clear()
                await self._drained.wait()
        if trim:
            exchange.write(stream.feed(trim.end()))
        exchange.write(stream.end())
        self._usage.end()
        exchange.end()

    def _refuse(self, refused: Refused) -> None:
        self._status = refused.status
        if self._exchange.begun:
            self._exchange.cut()
        else:
            self._exchange.answer(refused.status, _JSON, wire.error(refused))

    def _fail(self, error: Exception) -> None:
        """Said by its kind only: what else it says may hold what was sent."""
        late = isinstance(error, TimeoutError | httpcore2.TimeoutException)
        name = self._caller.provider.name if self._caller else "the provider"
        what = "has not answered in time" if late else f"cannot be reached ({type(error).__name__})"
        self._refuse(Refused(504 if late else 502, "api_error", f"{name} {what}."))

    def _tell(self, ended: str) -> None:
        """A line for each call: who, what, how it ended, tokens and time."""
        took_ms = (monotonic() - self._exchange.started) * 1000
        route, provider = (self._caller.route, self._caller.provider.name) if self._caller else ("", "-")
        read, written, guessed = self._usage.estimate(self._bytes)
        tokens = f"tokens {'~' if guessed else ''}{read} in, {written} out"
        model = self._desk.masker.mask(self._model.encode()).decode()
        self._log.call(route, f"{provider} {model} {self._status or '-'}{ended} {tokens}, {took_ms:.1f} ms")


_JSON = [(b"content-type", b"application/json"), wire.TRIED]


def _framed(headers: wire.Headers, url: httpcore2.URL, body: bytes) -> wire.Headers:
    """The headers that say where the request ends and whom it is for."""
    default = {b"http": 80, b"https": 443}.get(url.scheme)
    host = b"[%b]" % url.host if b":" in url.host else url.host
    host = host if url.port in (None, default) else b"%b:%d" % (host, url.port)
    length = [(b"content-length", b"%d" % len(body))] if body else []
    return [(b"host", host), *headers, *length]

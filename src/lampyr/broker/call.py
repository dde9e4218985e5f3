"""One call of a function to a provider, from its head to the last byte of the answer."""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING

import httpcore2

from lampyr.broker import wire
from lampyr.broker.cache import Kept, Key, Record, key_of
from lampyr.broker.desk import Caller, Desk, Provider, Refused
from lampyr.broker.estimate import Estimate, estimate
from lampyr.broker.usage import Tokens, Trim, Usage
from lampyr.gateway.exchange import Exchange
from lampyr.model import catalog

if TYPE_CHECKING:
    from lampyr.broker.bills import Bill, Bills
    from lampyr.broker.cache import Cache
    from lampyr.broker.log import Log

PIECE_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.25
_FAILURES = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError)
_UNPRINTABLE = re.compile(r"[^!-~]")


class Broken(Exception):
    """A provider has not begun to answer; another one may."""


class Call:
    """The receiver of an exchange. When its function leaves, the connection to the provider is closed at once."""

    def __init__(
        self,
        exchange: Exchange,
        host: str,
        desk: Desk,
        pool: httpcore2.AsyncConnectionPool,
        bills: Bills,
        cache: Cache,
        log: Log,
        function: str | None = None,
    ) -> None:
        """`function`: the only one that can have sent it; None: whoever is on this machine's loopback."""
        self._exchange = exchange
        self._host = host
        self._function = function
        self._desk = desk
        self._pool = pool
        self._bills = bills
        self._cache = cache
        self._log = log
        self._pieces = [exchange.body]
        self._bytes = len(exchange.body)
        self._whole = asyncio.Event()
        self._drained = asyncio.Event()
        self._caller: Caller | None = None
        self._asked: Provider | None = None  # the one that has been asked last
        self._model = ""
        self._estimate = Estimate(0, 0, 0)
        self._bill: Bill | None = None
        self._usage: Usage | None = None  # of an answer that has begun
        self._sent = False  # a provider may be reading the prompt
        self._hit = False  # the answer is one that was kept
        self._status = 0
        self._closed = False
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
        except (Broken, *_FAILURES) as error:
            self._fail(error)
        except asyncio.CancelledError:
            ended = " client_closed"
        except Exception as error:
            self._fail(error)
        finally:
            self._close(ended)

    async def _go(self) -> None:
        exchange = self._exchange
        name, rest = wire.provider_of(exchange.target)
        if exchange.host != self._host:
            raise Refused(421, "invalid_request_error", "The broker answers at its own address only.")
        self._caller = await self._desk.caller(exchange, name, self._function)
        provider = self._asked = self._caller.provider
        wire.address(provider, exchange.method, rest)
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
        await self._ask(wire.Question.of(exchange.method, rest, exchange.headers, body, provider.base_url))

    async def _ask(self, question: wire.Question) -> None:
        """Ask one provider after the other until one has begun to answer."""
        assert self._caller is not None
        wire.allow(self._caller.provider, question)
        self._model = question.model
        self._estimate = estimate(question.path, question.asked, self._bytes)
        plan = wire.plan(self._caller.provider, self._desk.others(self._caller), question)
        keys = [key_of(self._caller.route, *one) for one in plan]
        if found := self._cache.find(keys[0], monotonic()):
            self._bill = self._bills.free(self._caller)
            async with asyncio.timeout(self._caller.provider.timeout):
                await self._give(found)
            return
        may_be = [(provider, one.model) for provider, one in plan]
        self._bill = await self._bills.open(self._caller, may_be, self._estimate)
        for left, key, (provider, asked) in zip(range(len(plan) - 1, -1, -1), keys, plan, strict=True):
            self._asked, self._model = provider, asked.model
            try:
                async with asyncio.timeout(provider.timeout):
                    if found := self._cache.find(key, monotonic()):
                        await self._give(found)
                    else:
                        await self._try(provider, asked, key, last=not left)
                    return
            except (Broken, *_FAILURES):
                if not left or self._exchange.begun:
                    raise
            self._sent = False  # nobody has answered, so nobody is paid

    async def _try(self, provider: Provider, question: wire.Question, key: Key | None, *, last: bool) -> None:
        """Send it, again where nothing of an answer has come."""
        request = self._request(provider, question)
        if self._bill:
            self._bill.ask(provider, question.model, self._exchange.id, wire.invocation(self._exchange.headers))
        for attempt in range(provider.retries, -1, -1):
            try:
                self._sent = True
                response = await self._pool.handle_async_request(request)
            except _FAILURES:
                if not attempt:
                    raise
            else:
                try:
                    if response.status not in wire.PASSING and (last or response.status != wire.TOO_MANY):
                        await self._pass_on(response, question, key)
                        return
                    if not attempt and last:
                        await self._pass_on(response, question, key)
                        return
                    if not attempt or response.status == wire.TOO_MANY:
                        raise Broken
                finally:
                    await response.aclose()
            await asyncio.sleep(FIRST_RETRY_S * 2 ** (provider.retries - attempt))

    def _request(self, provider: Provider, question: wire.Question) -> httpcore2.Request:
        scheme, host, port, target = wire.address(provider, question.method, question.rest)
        url = httpcore2.URL(scheme=scheme, host=host, port=port, target=target)
        body = question.body
        headers = _framed(wire.request_headers(provider, question.headers), url, body)
        timeouts = {"timeout": {"connect": CONNECT_TIMEOUT_S}}
        return httpcore2.Request(question.method, url, headers=headers, content=body, extensions=timeouts)

    async def _pass_on(self, response: httpcore2.Response, question: wire.Question, key: Key | None) -> None:
        """Give each piece of an answer to the function when it comes; keep the whole where there is a key for it."""
        headers = {name.lower(): value for name, value in response.headers}
        if 300 <= response.status < 400 or headers.get(b"content-encoding", b"identity") != b"identity":
            what = "a redirect, which is not followed" if response.status < 400 else "something compressed"
            raise Refused(502, "api_error", f"The provider has answered with {what}.")
        self._status = response.status
        here = self._asked is not None and self._asked.kind in wire.HERE
        usage = self._usage = Usage(headers.get(b"content-type", b""), named=here)
        stream, trim = self._desk.masker.stream(), Trim() if question.trimmed and response.status == 200 else None
        record = Record(key) if key and response.status == 200 else None
        self._start(response.status, response.headers)
        async for piece in response.aiter_stream():
            usage.feed(piece)
            if record:
                record.feed(piece)
            await self._write(stream.feed(trim.feed(piece) if trim else piece))
        if trim:
            self._exchange.write(stream.feed(trim.end()))
        self._exchange.write(stream.end())
        usage.end()
        if record:
            self._cache.keep(record, response.headers, monotonic())
        self._end()

    async def _give(self, kept: Kept) -> None:
        """Answer with what was kept: nobody is asked, and nothing is spent."""
        self._hit, self._status = True, 200
        stream = self._desk.masker.stream()
        self._start(200, kept.headers)
        for at in range(0, len(kept.body), PIECE_BYTES):
            if at:
                await asyncio.sleep(0)  # other calls go on while a large one is masked
            await self._write(stream.feed(kept.body[at : at + PIECE_BYTES]))
        self._exchange.write(stream.end())
        self._end()

    def _start(self, status: int, headers: wire.Headers) -> None:
        mask = self._desk.masker.mask
        lines = [(name, mask(value)) for name, value in wire.response_headers(status, headers)]
        if self._asked and self._asked.cache is not None:
            lines.append((b"x-lampyr-cache", b"hit" if self._hit else b"miss"))
        self._exchange.start(status, lines)

    async def _write(self, data: bytes) -> None:
        """And wait until the function reads what was written."""
        self._exchange.write(data)
        while not self._exchange.writable:
            self._drained.clear()
            await self._drained.wait()

    def _end(self) -> None:
        self._close("")  # before the last byte leaves: who has the whole answer finds it in the ledger
        self._exchange.end()

    def _refuse(self, refused: Refused) -> None:
        self._status = refused.status
        self._close("")
        if self._exchange.begun:
            self._exchange.cut()
        else:
            self._exchange.answer(refused.status, [*_JSON, *refused.headers], wire.error(refused))

    def _fail(self, error: Exception) -> None:
        """Said by its kind only: what else it says may hold what was sent."""
        late = isinstance(error, TimeoutError | httpcore2.TimeoutException)
        name = self._asked.name if self._asked else "the provider"
        what = "has not answered in time" if late else f"cannot be reached ({type(error).__name__})"
        self._refuse(Refused(504 if late else 502, "api_error", f"{name} {what}."))

    # --- what it has cost

    def _close(self, ended: str) -> None:
        """Settle and write a line for the call: who, what, how it ended, tokens and time; once."""
        if self._closed:
            return
        self._closed = True
        route = self._caller.route if self._caller else ""
        name = self._asked.name if self._caller and self._asked else "-"
        tokens = self._tokens(ended)
        if self._usage is not None and self._usage.model:  # of those on this machine one answers to every name
            self._model = catalog.short_name(self._usage.model)
        took_ms = (monotonic() - self._exchange.started) * 1000
        usd = self._settle(tokens, took_ms)
        cost = f", {usd:.6f} USD" if usd else ""
        model = self._desk.masker.mask(_UNPRINTABLE.sub("?", self._model or "-").encode()).decode()
        said = f"tokens {'~' if tokens.guessed else ''}{tokens.read} in, {tokens.written} out{cost}"
        self._log.call(
            route, f"{name} {model} {self._status or '-'}{' hit' if self._hit else ''}{ended} {said}, {took_ms:.1f} ms"
        )

    def _tokens(self, ended: str) -> Tokens:
        """What the provider has said, or what it will want to be paid where nobody has waited for its answer."""
        if self._usage is not None:
            return self._usage.tokens(self._estimate.prompt)
        if self._sent and ended:
            return Tokens(self._estimate.prompt, 0, guessed=True)
        return Tokens(0, 0)

    def _settle(self, tokens: Tokens, took_ms: float) -> float:
        bill, self._bill = self._bill, None
        if bill is None:
            return 0.0
        if not (self._sent or self._hit) or self._asked is None:
            bill.void()
            return 0.0
        answered = 0 < self._status < 400
        invocation = wire.invocation(self._exchange.headers)
        id = self._exchange.id
        return bill.close(self._asked, self._model, tokens, id, invocation, took_ms, answered=answered)


_JSON = [(b"content-type", b"application/json"), wire.TRIED]


def _framed(headers: wire.Headers, url: httpcore2.URL, body: bytes) -> wire.Headers:
    """The headers that say where the request ends and whom it is for."""
    default = {b"http": 80, b"https": 443}.get(url.scheme)
    host = b"[%b]" % url.host if b":" in url.host else url.host
    host = host if url.port in (None, default) else b"%b:%d" % (host, url.port)
    length = [(b"content-length", b"%d" % len(body))] if body else []
    return [(b"host", host), *headers, *length]

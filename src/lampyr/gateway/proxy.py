"""Where each request goes: to a file, to a function, or back to the client with a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from lampyr.core.depth import MAX_DEPTH
from lampyr.core.routing import Match, Missing, Moved, Refused
from lampyr.gateway import answers, static, timing
from lampyr.gateway.call import Call
from lampyr.gateway.head import names_a_host
from lampyr.gateway.loops import Loops
from lampyr.types import Problem

if TYPE_CHECKING:
    from lampyr.gateway.http import Exchange
    from lampyr.gateway.site import Site
    from lampyr.gateway.tracing import Tracing
    from lampyr.node.snapshots import Base

ENV_JS = "/_lampyr/env.js"
TOO_DEEP = f"Functions call one another more than {MAX_DEPTH} deep over this gateway."
WEBSOCKET = "WebSockets are not carried; stream server-sent events instead."
# Some proxies, Azure's for one, add the port from which they were called.
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\](?::[0-9]{1,5})?")


class Proxy:
    """Serves exchanges from `site`. In development `freshen(then)` first checks the deployment against the disk."""

    def __init__(self, base: Base) -> None:
        self.site: Site | None = None
        self.previews: dict[str, Site] = {}  # by id, which is the first label of their hosts
        self._loops = Loops(base)
        self.tracing: Tracing | None = None
        self.freshen: Callable[[Callable[[], None]], None] | None = None
        self._early: list[Exchange] = []

    def switch(self, site: Site) -> None:
        """The new deployment takes over in one assignment."""
        self.site = site
        early, self._early = self._early, []
        for exchange in early:
            self._serve_from(site, exchange)

    def serve(self, exchange: Exchange) -> None:
        """Take a request from the front door."""
        if self.freshen is not None:
            parked = Parked(exchange)
            self.freshen(lambda: self._unpark(parked))
        elif self.site is not None:
            site = self.previews.get(exchange.host.partition(".")[0], self.site) if self.previews else self.site
            self._serve_from(site, exchange)
        else:
            self._unpark(Parked(exchange))

    def _unpark(self, parked: Parked) -> None:
        if parked.gone:
            return
        exchange = parked.exchange
        if self.site is None:
            self._early.append(exchange)
            return
        exchange.receiver = None
        if not exchange.complete:
            exchange.resume_body()
        self._serve_from(self.site, exchange)

    def _serve_from(self, site: Site, exchange: Exchange) -> None:
        where = site.router.resolve(exchange.target)
        if type(where) is Match:
            if site.files is not None and (file := site.files.find(where.file_path)) is not None:
                static.serve(site.files, exchange, file)
            else:
                self._call(site, exchange, where)
        elif type(where) is Moved:
            self._answer(exchange, answers.moved(where.location))
        elif type(where) is Refused:
            self._answer(exchange, answers.error("BAD_REQUEST", where.message, exchange.id))
        elif type(where) is Missing:
            self._missing(site, exchange, where)

    def _missing(self, site: Site, exchange: Exchange, where: Missing) -> None:
        if site.files is not None and (file := site.files.find(where.path)) is not None:
            static.serve(site.files, exchange, file)
        elif where.path == ENV_JS:
            headers = [(b"content-type", b"text/javascript; charset=utf-8"), (b"cache-control", b"no-cache")]
            known = exchange.method in ("GET", "HEAD")
            self._answer(exchange, (200, headers, site.env_js) if known else static.refusal(exchange))
        else:
            self._answer(exchange, answers.error("NOT_FOUND", None, exchange.id))

    def _answer(self, exchange: Exchange, answer: answers.Answer, route: str | None = None) -> None:
        status, headers, body = answer
        if status >= 400 and self.site is not None:
            self.site.log.refused(exchange, status, route)
        headers.append(timing.NONE)
        exchange.answer(status, headers, body)

    # --- functions

    def _call(self, site: Site, exchange: Exchange, match: Match) -> None:
        function = match.function
        if function.problem is not None:
            self._refuse_broken(site, exchange, function.route, function.problem)
            return
        method = exchange.method
        if (
            not function.asgi
            and method not in function.methods
            and not (method == "HEAD" and "GET" in function.methods)
        ):
            self._answer(exchange, self._not_allowed(exchange, function.methods), function.route)
            return
        # Of a body in chunks some may have come already, before anyone counts.
        if (exchange.content_length or len(exchange.body)) > function.settings.max_body:
            message = f"This function accepts bodies of up to {function.settings.max_body} bytes."
            self._answer(exchange, answers.error("FUNCTION_PAYLOAD_TOO_LARGE", message, exchange.id), function.route)
            return
        ip, origin = exchange.connection.peer, "http://" + (exchange.host or exchange.connection.authority)
        if site.trusted and any(ip_address(ip) in network for network in site.trusted):
            ip, origin = self._forwarded(site, exchange)
        if exchange.upgrade and exchange.upgrade.lower() == b"websocket":
            self._answer(exchange, answers.error("BAD_REQUEST", WEBSOCKET, exchange.id), function.route)
            return
        depth = self._loops.depth(exchange)
        if depth > MAX_DEPTH:
            self._answer(exchange, answers.error("INFINITE_LOOP_DETECTED", TOO_DEEP, exchange.id), function.route)
            return
        if self.tracing is not None:
            self.tracing.join(exchange)
        service = site.services[function.route]
        refused = site.crowd.refusal() or service.admission.refusal(exchange, ip)
        if refused is not None:
            refusal, wait_s = refused
            lines, body = refusal.answer(exchange, wait_s)
            service.book.refused(exchange.id, refusal.outcome, lines.status, len(body))
            site.log.not_let_in(exchange, lines.status, function.route, refusal.outcome)
            exchange.answer_with(lines, b"", body)
            return
        params = json.dumps(match.params) if match.params else ""
        target = f"{exchange.id}\0{method}\0{origin}\0{match.path}\0{match.query}\0{params}\0{ip}"
        if method in ("GET", "HEAD"):
            exchange.body = b""
        call = Call(service, exchange, target.encode("latin-1"), depth)
        exchange.receiver = call
        call.pool.lease(call)
        if exchange.waits:
            exchange.invite()

    def _refuse_broken(self, site: Site, exchange: Exchange, route: str, problem: Problem) -> None:
        """It has a row in the ledger, as a call has whose function cannot be imported."""
        more = {"traceback": str(problem)} if site.shows_tracebacks else {}
        status, headers, body = answers.error("FUNCTION_INVOCATION_FAILED", None, exchange.id, **more)
        site.services[route].book.refused(exchange.id, "error", status, len(body))
        site.log.not_let_in(exchange, status, route, "error")
        exchange.answer(status, [*headers, timing.NONE], body)

    def _not_allowed(self, exchange: Exchange, methods: tuple[str, ...]) -> answers.Answer:
        allowed = {*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())}
        allow = (b"allow", ", ".join(sorted(allowed)).encode())
        if exchange.method == "OPTIONS":
            return 204, [allow], b""
        return answers.error("METHOD_NOT_ALLOWED", None, exchange.id, allow)

    def _forwarded(self, site: Site, exchange: Exchange) -> tuple[str, str]:
        """The client as a trusted proxy names it: the last address in X-Forwarded-For that is not itself trusted."""
        told = {name: value.decode("latin-1") for name, value in exchange.headers if name.startswith(b"x-forwarded-")}
        ip = exchange.connection.peer
        for hop in reversed(told.get(b"x-forwarded-for", "").split(",")):
            try:
                address = _address(hop.strip())
            except ValueError:
                break
            ip = str(address)
            if not any(address in network for network in site.trusted):
                break
        scheme = told.get(b"x-forwarded-proto", "http").strip().lower()
        host = told.get(b"x-forwarded-host", "").strip()
        if not names_a_host(host.encode()):
            host = exchange.host or exchange.connection.authority
        return ip, ("https://" if scheme == "https" else "http://") + host


def _address(hop: str) -> IPv4Address | IPv6Address:
    """Raises ValueError."""
    found = _WITH_PORT.fullmatch(hop)
    return ip_address((found[1] or found[2]) if found else hop)


class Parked:
    """An exchange that waits for the deployment to be checked: its body waits with it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.gone = False
        exchange.receiver = self
        if not exchange.complete:
            exchange.pause_body()

    def body(self, piece: bytes) -> None:
        self.exchange.body += piece

    def body_end(self) -> None:
        self.exchange.complete = True

    def left(self) -> None:
        self.gone = True

    def drained(self) -> None:
        pass

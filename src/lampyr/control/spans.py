"""Rows of the ledger as spans of a trace: an invocation, within it the queue, the start and the handler, and its calls.

Attributes have the names of OpenTelemetry's semantic conventions where these have one (HTTP, FaaS, GenAI).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lampyr.core.traceparent import Context, Own, Sampling
from lampyr.ledger.records import ERRORS, REFUSED, Closed, Origin, Spent, Traced
from lampyr.ledger.tally import Tally, started_ms

# Traces that clients have begun, of invocations that have yet to end.
MOST_TRACED = 50_000

Value = str | bool | int | float


class Span(NamedTuple):
    """`kind`: server, client or internal; `parent`: a span's id or ""; times in ns since 1970; `failed`: why, or ""."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    failed: str
    attributes: dict[str, Value]


class Spans:
    """Makes spans of what the ledger has taken in, batch after batch."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._traced: OrderedDict[str, Traced] = OrderedDict()

    def of(self, tally: Tally, origins: Mapping[int, Origin]) -> Iterator[Span]:
        """Those of the rows and calls in `tally` whose traces are kept."""
        self._traced.update((one.id, one) for one in tally.traced)
        for row in tally.closed:
            origin = origins.get(row.origin)
            if origin is not None:
                yield from self._invocation(row, origin)
        for call in tally.settled:
            yield from self._call(call)
        while len(self._traced) > MOST_TRACED:
            self._traced.popitem(last=False)

    def _belongs(self, id: str, own: Own) -> tuple[str, str, bool]:
        """The trace of an invocation, its parent's span, and whether the trace is kept."""
        traced = self._traced.get(id)
        if traced is None:
            return own.trace, "", self._sampling.keeps(own.trace, None)
        # The gateway has made up its mind about this one already.
        return traced.trace, traced.parent, Context(traced.trace, traced.parent, traced.flags).sampled

    def _invocation(self, row: Closed, origin: Origin) -> Iterator[Span]:
        own = Own.of(row.id)
        trace, parent, kept = self._belongs(row.id, own)
        if not kept:
            return
        start_ns = started_ms(row.id) * 1_000_000
        queued_ns = start_ns + _ns(row.queue_ms)
        ready_ns = queued_ns + _ns(row.init_ms)
        end_ns = ready_ns + _ns(row.duration_ms)
        failed = row.outcome if row.outcome in ERRORS or row.status >= 500 else ""
        attributes = _about(row, origin)
        yield Span(origin.function, "server", trace, own.invocation, parent, start_ns, end_ns, failed, attributes)
        if row.outcome in REFUSED:
            return
        inside = (trace, own.invocation)
        if row.queue_ms > 0:
            yield _part("queue", *inside, own.queue, start_ns, queued_ns, "")
        if row.cold:
            yield _part("init", *inside, own.init, queued_ns, ready_ns, "")
        if row.duration_ms > 0:
            yield _part("handler", *inside, own.handler, ready_ns, end_ns, failed)

    def _call(self, call: Spent) -> Iterator[Span]:
        own = Own.of(call.invocation or call.id)
        trace, _, kept = self._belongs(call.invocation, own)
        if kept:
            start_ns = started_ms(call.id) * 1_000_000
            attributes: dict[str, Value] = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": call.provider,
                "gen_ai.request.model": call.model,
                "gen_ai.usage.input_tokens": call.tokens_in,
                "gen_ai.usage.output_tokens": call.tokens_out,
                "lampyr.cost_usd": call.cost_usd,
                "lampyr.tokens_guessed": call.guessed,
            }
            name = f"chat {call.model}".strip()
            parent = own.handler if call.invocation else ""
            end_ns = start_ns + _ns(call.took_ms)
            yield Span(name, "client", trace, Own.of(call.id).invocation, parent, start_ns, end_ns, "", attributes)


def _part(name: str, trace: str, parent: str, id: str, start_ns: int, end_ns: int, failed: str) -> Span:
    return Span(name, "internal", trace, id, parent, start_ns, end_ns, failed, {})


def _about(row: Closed, origin: Origin) -> dict[str, Value]:
    known: dict[str, Value] = {
        "http.route": origin.function,
        "faas.invocation_id": row.id,
        "faas.trigger": "http",
        "faas.coldstart": row.cold,
        "lampyr.deployment": origin.deployment,
        "lampyr.outcome": row.outcome,
        "lampyr.cpu_ms": row.cpu_ns / 1e6,
        "lampyr.memory_mb": row.memory_kib / 1024,
        "lampyr.gb_s": row.gb_s,
        "http.request.body.size": row.bytes_in,
        "http.response.body.size": row.bytes_out,
    }
    if row.status:
        known["http.response.status_code"] = row.status
    if origin.region:
        known["cloud.region"] = origin.region
    return known


def _ns(ms: float) -> int:
    return round(ms * 1e6)

"""Traces: where spans are sent off, a handler is told which one is its own, so that what it records stands below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampyr.core.traceparent import HEADER, SAMPLED, STATE, Context, Own, Sampling, parse
from lampyr.ledger import records

if TYPE_CHECKING:
    from lampyr.gateway.exchange import Exchange
    from lampyr.ledger.journal import Journal

_NAME, _STATE = HEADER.encode(), STATE.encode()


class Tracing:
    """Only there where somebody wants spans (OTEL_* variables): without it a trace passes through as it came."""

    def __init__(self, sampling: Sampling, journal: Journal) -> None:
        self._sampling = sampling
        self._journal = journal

    def join(self, exchange: Exchange) -> None:
        """Put the handler's span into the request's headers; control is told of a trace that it has brought along."""
        own, parent = Own.of(exchange.id), None
        if _NAME in exchange.fields:
            # What is none the front door has taken out (head.py).
            sent = next((value for name, value in exchange.headers if name == _NAME), b"")
            parent = parse(sent.decode("latin-1"))
        trace = parent.trace if parent else own.trace
        flags = SAMPLED if self._sampling.keeps(trace, parent) else 0
        if parent is not None:
            self._journal.write(records.traced(records.Traced(exchange.id, trace, parent.span, flags)))
        _tell(exchange, str(Context(trace, own.handler, flags)).encode(), goes_on=parent is not None)


def _tell(exchange: Exchange, context: bytes, *, goes_on: bool) -> None:
    """Let the handler see `context` among its headers, and no state of a trace that does not go on."""
    old = _NAME if goes_on else _STATE
    told = [header for header in exchange.headers if header[0] != old]
    told.append((_NAME, context))
    exchange.headers = told
    exchange.fields = b"\0".join([part for header in told for part in header])

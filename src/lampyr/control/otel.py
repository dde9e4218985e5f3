"""Spans on their way to a collector (OTLP over HTTP): a thread of control's, never in a request's way.

Only there where OTEL_EXPORTER_OTLP_ENDPOINT or ..._TRACES_ENDPOINT is in the server's environment, and with the extra
`[otel]`: encoding and sending are OpenTelemetry's own, which reads the other OTEL_EXPORTER_OTLP_* variables.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lampyr.control.spans import Span, Spans
from lampyr.core.traceparent import Sampling, sampling
from lampyr.ledger.records import Origin
from lampyr.ledger.tally import Tally
from lampyr.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
MAX_SPANS = 512  # in one message
EVERY_S = 1.0
# Rows that wait while a collector is slow or away; of more, the eldest are let go.
MOST_ROWS = 50_000


def wanted(environ: Mapping[str, str]) -> tuple[Sampling | None, str]:
    """How spans are to be picked, or None: nobody wants any; and a complaint about the variables, or ""."""
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not endpoint or off:
        return None, ""
    if not _installed():
        return None, "OTEL_* variables name a collector, and what sends spans is not installed: lampyr[otel]"
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        return None, f"spans are sent by http/protobuf only; OTEL_EXPORTER_OTLP_PROTOCOL says {protocol!r}"
    name, argument = environ.get("OTEL_TRACES_SAMPLER", ""), environ.get("OTEL_TRACES_SAMPLER_ARG", "")
    found = sampling(name, argument)
    if found is None:
        return None, f"OTEL_TRACES_SAMPLER {name!r} with the argument {argument!r} is not known, so no spans are sent"
    return found, ""


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What the exporter reads. Some collectors want a key there, so it is told to control and in no command line."""
    return {name: value for name, value in environ.items() if name.startswith("OTEL_")}


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


class Exporter(threading.Thread):
    """Sends the spans of what it is offered. What control is killed over is lost to traces, and to the ledger not."""

    def __init__(self, picked: Sampling, project: str) -> None:
        super().__init__(name="otel", daemon=True)
        self._spans = Spans(picked)
        self._project = project
        self._batches: deque[tuple[Tally, Mapping[int, Origin]]] = deque()
        self._rows = 0
        self._failing = False
        self._last = threading.Event()

    def finish(self) -> None:
        """Nothing more is offered: send what waits. Returns when that is done, or cannot be."""
        self._last.set()
        self.join()

    def offer(self, tally: Tally, origins: Mapping[int, Origin]) -> None:
        """These rows are in the ledger. Never waits."""
        self._batches.append((tally, origins))
        self._rows += len(tally.closed)
        while self._rows > MOST_ROWS and len(self._batches) > 1:
            try:
                dropped, _ = self._batches.popleft()
            except IndexError:
                return
            self._rows -= len(dropped.closed)

    def run(self) -> None:
        """Until there is nothing more to send."""
        # It would tell of each batch that fails, at length; we tell of the first.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        sender = _Sender(self._project)
        last = False
        while not last:
            last = self._last.wait(EVERY_S)
            while self._batches:
                try:
                    tally, origins = self._batches.popleft()
                except IndexError:
                    break
                self._rows -= len(tally.closed)
                self._send(sender, self._spans.of(tally, origins))

    def _send(self, sender: _Sender, spans: Iterable[Span]) -> None:
        spans = iter(spans)
        while batch := list(islice(spans, MAX_SPANS)):
            failed = not sender.send(batch)
            if failed != self._failing:
                what = "cannot be sent" if failed else "are sent again"
                print(f"lampyr: {'warning: ' * failed}spans {what} to {sender.where}", file=sys.stderr, flush=True)
            self._failing = failed


class _Sender:
    """OpenTelemetry's exporter, and our spans in its words."""

    def __init__(self, project: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._resource = Resource.create({} if named else {"service.name": project})
        self._scope = InstrumentationScope("lampyr", VERSION)
        self._exporter = OTLPSpanExporter()
        place = urlsplit(next(os.environ[name] for name in _ENDPOINTS if os.environ.get(name)))
        self.where = f"{place.hostname}:{place.port}" if place.port else f"{place.hostname}"

    def send(self, spans: list[Span]) -> bool:
        """Whether the collector has them. Waits, and tries again, as long as the exporter does."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            return self._exporter.export([self._translated(one) for one in spans]) is SpanExportResult.SUCCESS
        except Exception:  # whatever a collector's answer may do to the exporter, the thread goes on
            return False

    def _translated(self, one: Span) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(id: str, remote: bool) -> SpanContext:
            return SpanContext(int(one.trace, 16), int(id, 16), remote, TraceFlags(TraceFlags.SAMPLED))

        return ReadableSpan(
            name=one.name,
            context=context(one.id, False),
            parent=context(one.parent, one.kind == "server") if one.parent else None,
            resource=self._resource,
            attributes={**one.attributes, **({"error.type": one.failed} if one.failed else {})},
            kind=SpanKind[one.kind.upper()],
            status=Status(StatusCode.ERROR if one.failed else StatusCode.UNSET),
            start_time=one.start_ns,
            end_time=one.end_ns,
            instrumentation_scope=self._scope,
        )

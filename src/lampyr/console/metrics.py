"""`/metrics`: the ledger's counts and what runs, as Prometheus reads them (or as OpenMetrics where that is asked for).

Counters come from the ledger, so they go on where they were after a restart of whatever process. Every label is one of
a few words or the name of something that the project's files name, so a client cannot make series.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lampyr.console import facts
from lampyr.core.codes import CODES
from lampyr.ledger import store
from lampyr.ledger.ever import BOUNDS_MS, TIMES, Ever
from lampyr.ledger.records import ERRORS, REFUSED
from lampyr.version import VERSION

Labels = tuple[str, ...]

MIB = 1024 * 1024
STATES = ("starting", "idle", "busy", "retiring")
_BY_OUTCOME = {
    "rate_limited": "RATE_LIMITED",
    "over_budget": "BUDGET_EXCEEDED",
    "throttled": "FUNCTION_THROTTLED",
    "interrupted": "INTERRUPTED",
}
_REASONS = {"rate_limited": "rate_limit", "over_budget": "budget", "throttled": "capacity"}
_BY_STATUS = {code.status: name for name, code in reversed(CODES.items())}
_SUMS = {
    "cold_starts": ("cold_starts", 1.0, "Invocations that waited for a new instance."),
    "billed_seconds": ("billed_ms", 1e-3, "Time of invocations from when their instance got them to the last byte."),
    "cpu_seconds": ("cpu_ms", 1e-3, "CPU time of invocations."),
    "gibibyte_seconds": ("gb_s", 1.0, "Memory of the function in GiB times the seconds of its invocations."),
    "received_bytes": ("bytes_in", 1.0, "Bytes of request bodies."),
    "sent_bytes": ("bytes_out", 1.0, "Bytes of response bodies."),
}
_TIMES = {
    "duration": "From when its instance got an invocation to the last byte of its answer.",
    "queue": "How long invocations waited for an instance, without its start.",
    "init": "How long the instances of cold starts took to start.",
}


def code(runtime: str, outcome: str, status: int) -> str:
    """The code of SPEC 3 of an invocation that went wrong, or INTERRUPTED where the server itself was ended."""
    if outcome in _BY_OUTCOME:
        return _BY_OUTCOME[outcome]
    if outcome == "timeout":
        return "EDGE_FUNCTION_INVOCATION_TIMEOUT" if runtime == "edge" else "FUNCTION_INVOCATION_TIMEOUT"
    if outcome == "crashed":
        return "FUNCTION_OUT_OF_MEMORY" if status == 507 else "FUNCTION_CRASHED"
    # A stream that fails behind its first byte has the status it began with.
    return _BY_STATUS.get(status, "FUNCTION_INVOCATION_FAILED")


class Figures(Collector):
    """Of the functions that `running` (the payload of `lampyr ps`) has, what the ledger has `counted`."""

    def __init__(self, running: Mapping[str, Any], counted: Ever) -> None:
        self._running = running["functions"]
        # A function that two deployments have is there twice while one of them finishes.
        self._runtimes: dict[str, str] = {one["function"]: one["runtime"] for one in reversed(self._running)}
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        """Every family of metrics."""
        yield _gauge("info", "Which Lampyr this is.", ["version"], {(VERSION,): 1})
        yield from self._answers()
        yield from self._sums()
        yield from self._histograms()
        yield from self._instances()
        yield from self._snapshots()

    def _answers(self) -> Iterator[Metric]:
        requests, errors, throttles = _values(), _values(), _values()
        for function, runtime in self._runtimes.items():
            requests[function, runtime, "ok", "2xx"] = 0
        for (function, outcome, status), count in self._counted.answers.items():
            if function not in self._runtimes:
                continue
            runtime = self._runtimes[function]
            requests[function, runtime, outcome, f"{status // 100}xx" if status else "none"] += count
            if outcome in ERRORS | REFUSED:
                errors[function, runtime, code(runtime, outcome, status)] += count
            if outcome in _REASONS:
                throttles[function, runtime, _REASONS[outcome]] += count
        labels = ["function", "runtime"]
        yield _counter("requests", "Requests to functions.", [*labels, "outcome", "status"], requests)
        yield _counter("errors", "What went wrong, by the code of the answer.", [*labels, "code"], errors)
        yield _counter(
            "throttles", "Requests for which there was no allowance or room.", [*labels, "reason"], throttles
        )

    def _sums(self) -> Iterator[Metric]:
        totals = {name: _values(self._runtimes.items()) for name in _SUMS}
        calls, tokens, cost = _values(), _values(), _values()
        for (function, provider), sums in self._counted.sums.items():
            if function not in self._runtimes:
                continue
            labels = function, self._runtimes[function]
            for name, (column, factor, _) in _SUMS.items():
                totals[name][labels] += sums[column] * factor
            if provider:
                calls[*labels, provider] += sums["calls"]
                tokens[*labels, provider, "in"] += sums["tokens_in"]
                tokens[*labels, provider, "out"] += sums["tokens_out"]
                cost[*labels, provider] += sums["cost_usd"]
        for name, (_, _, help) in _SUMS.items():
            yield _counter(name, help, ["function", "runtime"], totals[name])
        by = ["function", "runtime", "provider"]
        yield _counter("provider_calls", "Calls to providers.", by, calls)
        yield _counter("tokens", "Tokens of calls to providers.", [*by, "direction"], tokens)
        yield _counter("cost_dollars", "US dollars for these tokens, by the price table.", by, cost)

    def _histograms(self) -> Iterator[Metric]:
        bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
        for what in TIMES:
            family = HistogramMetricFamily(f"lampyr_{what}_seconds", _TIMES[what], labels=["function", "runtime"])
            for function, runtime in self._runtimes.items():
                spread = self._counted.times.get((function, what))
                if spread is not None:
                    family.add_metric(
                        [function, runtime],
                        list(zip(bounds, _running_totals(spread.counts), strict=True)),
                        spread.total_ms / 1000,
                    )
            yield family

    def _instances(self) -> Iterator[Metric]:
        states = _values()
        in_flight, waiting, memory = (_values(self._runtimes.items()) for _ in range(3))
        for function in self._running:
            labels = function["function"], function["runtime"]
            for state in STATES:
                states[*labels, state] += 0
            waiting[labels] += function["waiting"]
            for one in function["instances"]:
                states[*labels, one["state"]] += 1
                in_flight[labels] += one["in_flight"]
                memory[labels] += one["memory_mb"] * MIB
        by = ["function", "runtime"]
        yield _gauge("instances", "Instances there are now.", [*by, "state"], states)
        yield _gauge("instances_memory_bytes", "Memory of instances, of what they share their part.", by, memory)
        yield _gauge("requests_in_flight", "Requests that instances work on.", by, in_flight)
        yield _gauge("requests_waiting", "Requests that wait for an instance.", by, waiting)

    def _snapshots(self) -> Iterator[Metric]:
        ready, memory = _values(), _values()
        for one in reversed(self._running):  # the deployment that serves is the first, and has the last word
            ready[one["function"], one["runtime"]] = one["snapshot"] == "ready"
            memory[one["function"], one["runtime"]] = one["snapshot_mb"] * MIB
        by = ["function", "runtime"]
        yield _gauge("snapshot_ready", "Whether the function's snapshot is there (1) or not (0).", by, ready)
        yield _gauge("snapshot_memory_bytes", "Memory of the snapshot that no other process shares.", by, memory)


def _values(zeros: Iterable[Labels] = ()) -> defaultdict[Labels, float]:
    return defaultdict(float, dict.fromkeys(zeros, 0.0))


def _running_totals(counts: list[int]) -> Iterator[float]:
    total = 0
    for count in counts:
        total += count
        yield total


def _counter(name: str, help: str, labels: list[str], values: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(f"lampyr_{name}", help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, help: str, labels: list[str], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(f"lampyr_{name}", help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


async def _scrape(request: Request) -> Response:
    here = facts.of(request)
    running, counted = await asyncio.gather(here.control.ask("ps"), asyncio.to_thread(store.counted, here.ledger))
    registry = CollectorRegistry()
    registry.register(Figures(running, counted))
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=None, headers={"content-type": kind})


def routes() -> list[Route]:
    return [Route("/metrics", _scrape)]

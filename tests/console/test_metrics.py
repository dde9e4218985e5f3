"""`/metrics`: what Prometheus' own parser reads in it, next to what has happened."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lampyr.console.metrics import Figures, code
from lampyr.core.codes import CODES
from lampyr.ledger.ever import BOUNDS_MS, TIMES, Ever, Spread
from lampyr.ledger.records import ERRORS, REFUSED
from lampyr.ledger.tally import SUMS

NOTHING = Ever({}, {}, {})


def function(route: str, *instances: dict[str, Any], runtime: str = "standard", **more: Any) -> dict[str, Any]:
    facts = {"function": route, "runtime": runtime, "deployment": "d", "snapshot": "ready", "snapshot_mb": 2.5}
    return {**facts, "waiting": 0, "instances": list(instances), **more}


def instance(state: str, in_flight: int = 0, memory_mb: float = 1.0) -> dict[str, Any]:
    return {"id": "1", "pid": 1, "state": state, "in_flight": in_flight, "memory_mb": memory_mb}


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(counted: Ever, *functions: dict[str, Any]) -> Samples:
    """What the parser reads; the same in both formats, once per series."""
    registry = CollectorRegistry()
    registry.register(Figures({"functions": list(functions)}, counted))
    found: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.documentation and family.type != "unknown", family.name
        for one in family.samples:
            key = one.name, frozenset(one.labels.items())
            assert key not in found
            found[key] = one.value
    again = {
        (one.name, frozenset(one.labels.items())): one.value
        for family in read_openmetrics(openmetrics(registry).decode())
        for one in family.samples
    }
    assert again == found
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"lampyr_{name}", frozenset(labels.items())]


def test_a_function_that_nobody_called_is_there_with_zeros() -> None:
    found = samples(NOTHING, function("/a"))
    who = {"function": "/a", "runtime": "standard"}
    assert value(found, "requests_total", **who, outcome="ok", status="2xx") == 0
    for name in ("cold_starts", "cpu_seconds", "billed_seconds", "gibibyte_seconds", "received_bytes", "sent_bytes"):
        assert value(found, f"{name}_total", **who) == 0
    assert value(found, "instances", **who, state="idle") == 0
    assert value(found, "snapshot_ready", **who) == 1
    assert value(found, "snapshot_memory_bytes", **who) == 2.5 * 1024 * 1024


def test_what_has_happened_is_counted_by_outcome_and_code() -> None:
    answers = {
        ("/a", "ok", 200): 7,
        ("/a", "ok", 204): 1,
        ("/a", "ok", 404): 2,
        ("/a", "error", 500): 3,
        ("/a", "error", 200): 1,
        ("/a", "rate_limited", 429): 4,
        ("/a", "throttled", 503): 5,
        ("/a", "interrupted", 0): 6,
        ("/e", "timeout", 504): 8,
        ("/gone", "ok", 200): 9,
    }
    found = samples(Ever(answers, {}, {}), function("/a"), function("/e", runtime="edge"))
    who = {"function": "/a", "runtime": "standard"}
    assert value(found, "requests_total", **who, outcome="ok", status="2xx") == 8
    assert value(found, "requests_total", **who, outcome="ok", status="4xx") == 2
    assert value(found, "requests_total", **who, outcome="interrupted", status="none") == 6
    assert value(found, "errors_total", **who, code="FUNCTION_INVOCATION_FAILED") == 4
    assert value(found, "errors_total", **who, code="RATE_LIMITED") == 4
    assert value(found, "errors_total", **who, code="INTERRUPTED") == 6
    assert value(found, "throttles_total", **who, reason="capacity") == 5
    edge = {"function": "/e", "runtime": "edge"}
    assert value(found, "errors_total", **edge, code="EDGE_FUNCTION_INVOCATION_TIMEOUT") == 8
    assert not any(("function", "/gone") in labels for _, labels in found)


@pytest.mark.parametrize("outcome", sorted(ERRORS | REFUSED))
@pytest.mark.parametrize("status", [0, 200, 413, 418, 429, 500, 502, 503, 504, 507, 508])
def test_every_error_has_a_code_of_the_contract(outcome: str, status: int) -> None:
    for runtime in ("standard", "edge"):
        assert code(runtime, outcome, status) in CODES or outcome == "interrupted"


def test_sums_tokens_and_cost() -> None:
    sums = dict.fromkeys(SUMS, 0.0)
    counted = {
        ("/a", ""): {**sums, "billed_ms": 1500.0, "cpu_ms": 250.0, "cold_starts": 2, "bytes_in": 3, "bytes_out": 4},
        ("/a", "openai"): {**sums, "billed_ms": 500.0, "tokens_in": 10, "tokens_out": 20, "cost_usd": 0.25},
    }
    found = samples(Ever({}, counted, {}), function("/a"))
    who = {"function": "/a", "runtime": "standard"}
    assert value(found, "billed_seconds_total", **who) == 2.0
    assert value(found, "cpu_seconds_total", **who) == 0.25
    assert value(found, "cold_starts_total", **who) == 2
    assert value(found, "tokens_total", **who, provider="openai", direction="in") == 10
    assert value(found, "tokens_total", **who, provider="openai", direction="out") == 20
    assert value(found, "cost_dollars_total", **who, provider="openai") == 0.25


def test_times_are_histograms() -> None:
    times = {("/a", "duration"): Spread.of([0.5, 0.6, 5, 3_600_000])}
    found = samples(Ever({}, {}, times), function("/a"))
    who = {"function": "/a", "runtime": "standard"}
    for bound, count in (("0.0005", 1), ("0.001", 2), ("0.0025", 2), ("0.005", 3), ("900.0", 3), ("+Inf", 4)):
        assert value(found, "duration_seconds_bucket", **who, le=bound) == count
    assert value(found, "duration_seconds_count", **who) == 4
    assert value(found, "duration_seconds_sum", **who) == pytest.approx(3600.0061)


def test_what_runs_is_added_up_over_deployments() -> None:
    served = function("/a", instance("busy", 2), instance("idle", 0, 3.0), waiting=5)
    leaving = function("/a", instance("retiring", 1), deployment="before", snapshot="absent", snapshot_mb=0.0)
    found = samples(NOTHING, served, leaving)
    who = {"function": "/a", "runtime": "standard"}
    for state in ("busy", "idle", "retiring"):
        assert value(found, "instances", **who, state=state) == 1
    assert value(found, "requests_in_flight", **who) == 3
    assert value(found, "requests_waiting", **who) == 5
    assert value(found, "instances_memory_bytes", **who) == 5 * 1024 * 1024
    assert value(found, "snapshot_ready", **who) == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("called", [False, True])
def test_promtool_has_nothing_to_say(called: bool) -> None:
    counted = NOTHING
    if called:
        spread = Spread.of([0.5, 0.6, 5, 3_600_000])
        answers = {("/a", outcome, 500): 1 for outcome in (*ERRORS, *REFUSED)}
        sums = {("/a", "openai"): dict.fromkeys(SUMS, 2.5)}
        counted = Ever(answers, sums, {("/a", what): spread for what in TIMES})
    registry = CollectorRegistry()
    registry.register(Figures({"functions": [function("/a", instance("busy", 2)), function('/"b\\\n')]}, counted))
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=generate_latest(registry), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_name_breaks_the_format(name: str) -> None:
    route = "/" + name
    found = samples(Ever({(route, "ok", 200): 3}, {}, {}), function(route))
    assert value(found, "requests_total", function=route, runtime="standard", outcome="ok", status="2xx") == 3


@given(st.lists(st.floats(0, 1e7)))
def test_a_spread_is_what_counting_one_by_one_comes_to(times_ms: list[float]) -> None:
    counts = [0] * (len(BOUNDS_MS) + 1)
    for time_ms in times_ms:
        counts[next((n for n, bound in enumerate(BOUNDS_MS) if time_ms <= bound), len(BOUNDS_MS))] += 1
    found = Spread.of(times_ms)
    assert found.counts == counts
    assert found.total_ms == pytest.approx(sum(times_ms))

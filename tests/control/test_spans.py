"""Rows of the ledger as spans: what is in which, what is kept, and which call to a provider is whose."""

from __future__ import annotations

import pytest

from lampyr.control import otel
from lampyr.control.spans import MOST_TRACED, Span, Spans
from lampyr.core.traceparent import Own, Sampling
from lampyr.ledger.records import Closed, Origin, Spent, Traced
from lampyr.ledger.tally import Tally

MS = 1_000_000
AT_MS = 1_800_000_000_000
ORIGIN = Origin("/api/chat", "d1", "")
ALL = Sampling()


def id_of(number: int, at_ms: int = AT_MS) -> str:
    return f"{at_ms:011x}{number:013x}"


def row(number: int = 1, outcome: str = "ok", status: int = 200, *, cold: bool = False) -> Closed:
    times = (2.0, 5.0 if cold else 0.0, 10.0)
    return Closed(id_of(number), ORIGIN.key, status, cold, outcome, *times, 3_000_000, 2048, 0.5, 10, 20)


def spans(spans: Spans, *rows: Closed, calls: tuple[Spent, ...] = (), traced: tuple[Traced, ...] = ()) -> list[Span]:
    tally = Tally(closed=list(rows), settled=list(calls), traced=list(traced))
    return list(spans.of(tally, {ORIGIN.key: ORIGIN}))


def test_an_invocation_holds_its_parts_one_after_the_other() -> None:
    whole, queue, init, handler = spans(Spans(ALL), row(cold=True))
    assert [one.name for one in (whole, queue, init, handler)] == ["/api/chat", "queue", "init", "handler"]
    assert (whole.kind, whole.parent) == ("server", "")
    assert {one.parent for one in (queue, init, handler)} == {whole.id}
    assert len({one.trace for one in (whole, queue, init, handler)}) == 1
    start_ns = AT_MS * MS
    assert (whole.start_ns, whole.end_ns) == (start_ns, start_ns + 17 * MS)
    assert (queue.start_ns, queue.end_ns) == (start_ns, start_ns + 2 * MS)
    assert (init.start_ns, init.end_ns) == (start_ns + 2 * MS, start_ns + 7 * MS)
    assert (handler.start_ns, handler.end_ns) == (start_ns + 7 * MS, start_ns + 17 * MS)
    assert handler.id == Own.of(id_of(1)).handler
    about = whole.attributes
    assert about["faas.invocation_id"] == id_of(1) and about["faas.coldstart"] is True
    assert about["http.response.status_code"] == 200 and about["lampyr.cpu_ms"] == 3.0


def test_one_that_is_warm_has_no_start() -> None:
    assert [one.name for one in spans(Spans(ALL), row())] == ["/api/chat", "queue", "handler"]


@pytest.mark.parametrize(
    ("outcome", "status", "failed"),
    [
        ("ok", 200, ""),
        ("ok", 404, ""),
        ("ok", 500, "ok"),
        ("error", 500, "error"),
        ("error", 200, "error"),
        ("timeout", 504, "timeout"),
        ("client_closed", 0, ""),
    ],
)
def test_what_went_wrong_has_failed(outcome: str, status: int, failed: str) -> None:
    whole, *_, handler = spans(Spans(ALL), row(1, outcome, status))
    assert (whole.failed, handler.failed) == (failed, failed)
    assert ("http.response.status_code" in whole.attributes) == bool(status)


def test_who_is_refused_has_one_span() -> None:
    assert [one.name for one in spans(Spans(ALL), row(1, "rate_limited", 429))] == ["/api/chat"]


def test_a_trace_that_a_client_has_begun_goes_on() -> None:
    """Also where its row is complete long after it came."""
    maker = Spans(ALL)
    traced = Traced(id_of(1), "a" * 32, "b" * 16, 1)
    assert spans(maker, traced=(traced,)) == []
    whole, *parts = spans(maker, row())
    assert (whole.trace, whole.parent) == ("a" * 32, "b" * 16)
    assert {one.trace for one in parts} == {"a" * 32}
    assert spans(maker, row(2), traced=(Traced(id_of(2), "a" * 32, "b" * 16, 0),)) == []


def test_traces_of_what_never_ends_are_forgotten() -> None:
    maker = Spans(ALL)
    spans(maker, traced=tuple(Traced(id_of(n), "a" * 32, "b" * 16, 1) for n in range(MOST_TRACED + 10)))
    assert spans(maker, row(5))[0].parent == ""
    assert spans(maker, row(MOST_TRACED))[0].parent == "b" * 16


def test_some_are_kept_and_whole() -> None:
    maker = Spans(Sampling(True, 0.25))
    kept = [spans(maker, row(number)) for number in range(400)]
    assert {len(one) for one in kept} == {0, 3}
    assert 60 < sum(map(bool, kept)) < 140


def test_a_call_to_a_provider_stands_in_its_handler() -> None:
    call = Spent(id_of(9, AT_MS + 8), id_of(1), "/api/chat", "openai", "gpt-5", 100, 20, 0.25, False, 6.0)
    *_, handler, found = spans(Spans(ALL), row(cold=True), calls=(call,))
    assert (found.name, found.kind, found.parent, found.trace) == ("chat gpt-5", "client", handler.id, handler.trace)
    assert (found.start_ns, found.end_ns) == ((AT_MS + 8) * MS, (AT_MS + 14) * MS)
    assert found.attributes["gen_ai.provider.name"] == "openai"
    assert found.attributes["gen_ai.request.model"] == "gpt-5"
    assert found.attributes["gen_ai.usage.input_tokens"] == 100
    assert found.attributes["gen_ai.usage.output_tokens"] == 20


def test_a_call_of_nobody_known_is_a_trace_of_its_own() -> None:
    (found,) = spans(Spans(ALL), calls=(Spent(id_of(9), "", "/api/chat", "openai", "", 1, 1, 0.0, True),))
    assert (found.parent, found.name) == ("", "chat")


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_SAMPLER": "moon"}, "OTEL_TRACES_SAMPLER"),
    ],
)
def test_nobody_wants_spans(environ: dict[str, str], complaint: str) -> None:
    picked, said = otel.wanted(environ)
    assert picked is None and complaint in said and bool(complaint) == bool(said)


def test_somebody_wants_spans() -> None:
    assert otel.wanted({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/v1/traces"}) == (ALL, "")


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_installed", lambda: False)
    picked, said = otel.wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert picked is None and "lampyr[otel]" in said


def test_what_nobody_takes_does_not_pile_up() -> None:
    exporter = otel.Exporter(ALL, "x")  # whose thread has not begun
    for _ in range(20):
        exporter.offer(Tally(closed=[row()] * (otel.MOST_ROWS // 4)), {})
    assert sum(len(tally.closed) for tally, _ in exporter._batches) <= otel.MOST_ROWS

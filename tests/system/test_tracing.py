"""Traces through a running server: what a handler sees of one, what it passes on, and what a collector is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from collector import Collector, collecting
from provider import WORDS, Fake
from serving import Serve, Server, until, write

from lampyr.core.traceparent import parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = f"00-{TRACE}-{SPAN}-01"
PROJECT = {
    "app/see/route.py": """
        rate_limit = "none"

        def GET(req):
            return {name: req.headers.getall(name) for name in ("traceparent", "tracestate", "x-other")}
    """,
    "app/pass/[client]/route.py": """
        import asyncio, http.client, json, os, urllib.request
        import httpx, httpx2
        from lampyr import headers

        def _http_client(url):
            connection = http.client.HTTPConnection(url.removeprefix("http://").partition("/")[0])
            connection.request("GET", "/see")
            return connection.getresponse().read()

        def _later(url):
            import requests
            return requests.get(url).content

        async def _aiohttp(url):
            import aiohttp
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return await answer.read()

        CLIENTS = {
            "requests": _later,
            "aiohttp": lambda url: asyncio.run(_aiohttp(url)),
            "httpx": lambda url: httpx.get(url).content,
            "httpx2": lambda url: httpx2.get(url).content,
            "urllib": lambda url: urllib.request.urlopen(url).read(),
            "http.client": _http_client,
            "own": lambda url: httpx2.get(url, headers={"TraceParent": headers().get("x-other")}).content,
            "own-urllib": lambda url: urllib.request.urlopen(
                urllib.request.Request(url, headers={"TraceParent": headers().get("x-other")})
            ).read(),
        }

        def GET(req):
            return json.loads(CLIENTS[req.params["client"]](f"http://{req.headers['host']}/see"))
    """,
    "app/async/route.py": """
        runtime = "edge"
        import asyncio
        import httpx2

        async def GET(req):
            async with httpx2.AsyncClient() as client:
                await asyncio.sleep(0.05)
                return (await client.get(f"http://{req.headers['host']}/see")).json()
    """,
    "app/fail/route.py": "def GET(): raise ValueError('as asked')\n",
    "app/once/route.py": "rate_limit = '1/hour'\ndef POST(): return 'once'\n",
}
CLIENTS = ("httpx", "httpx2", "urllib", "http.client", "requests", "aiohttp")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has told of a collector."""
    root = tmp_path_factory.mktemp("plain") / "project"
    write(root, PROJECT)
    server = Server(root, "start")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("traced") / "shop"
    write(root, PROJECT)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=canary-7d1f"}
    server = Server(root, "start", env=env)
    yield server
    server.stop()


# --- without a collector


def test_a_trace_passes_through_as_it_came(plain: Server) -> None:
    seen = plain.get("/see", traceparent=SENT, tracestate="a=1,b=2").json()
    assert seen == {"traceparent": [SENT], "tracestate": ["a=1,b=2"], "x-other": []}
    assert plain.get("/see").json() == {"traceparent": [], "tracestate": [], "x-other": []}


@pytest.mark.parametrize(
    "text", ["x", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"{SENT}-more", SENT.upper()]
)
def test_what_is_no_trace_is_passed_on_to_nobody(plain: Server, text: str) -> None:
    seen = plain.get("/see", traceparent=text, tracestate="a=1", x_other="b").json()
    assert seen == {"traceparent": [], "tracestate": [], "x-other": ["b"]}


def test_two_are_none(plain: Server) -> None:
    with plain.connect() as sock:
        lines = f"Host: x\r\ntraceparent: {SENT}\r\nTraceparent: {SENT}\r\ntracestate: a=1\r\nx-other: b"
        sock.sendall(f"GET /see HTTP/1.1\r\n{lines}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"traceparent": [], "tracestate": [], "x-other": ["b"]}


@pytest.mark.parametrize("client", CLIENTS)
def test_stock_clients_pass_a_trace_on(plain: Server, client: str) -> None:
    seen = plain.get(f"/pass/{client}", traceparent=SENT, tracestate="a=1").json()
    assert seen == {"traceparent": [SENT], "tracestate": ["a=1"], "x-other": []}
    assert plain.get(f"/pass/{client}").json()["traceparent"] == []


@pytest.mark.parametrize("client", ["own", "own-urllib"])
def test_who_names_a_trace_has_the_say(plain: Server, client: str) -> None:
    other = f"00-{'c' * 32}-{'d' * 16}-01"
    assert plain.get(f"/pass/{client}", traceparent=SENT, x_other=other).json()["traceparent"] == [other]


def test_requests_that_run_side_by_side_keep_their_traces_apart(plain: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    sent = [f"00-{number + 1:032x}-{SPAN}-01" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(lambda one: plain.get("/async", traceparent=one).json()["traceparent"], sent))
    assert seen == [[one] for one in sent]


def test_nobody_is_sent_spans_where_nobody_wants_them(plain: Server) -> None:
    control = plain.find("lampyr.control")
    assert not any("opentelemetry" in one.path for one in control.memory_maps())
    assert control.num_threads() <= 2


# --- with one


def test_an_invocation_is_a_span_with_its_parts(traced: Server, collector: Collector) -> None:
    answer = traced.get("/async")
    cold = "desc=cold" in answer.headers["server-timing"]
    until(lambda: {"/async", "/see"} <= {one.name for one in collector.of(answer.headers["x-lampyr-id"])}, "both")
    spans = {one.name: one for one in collector.of(answer.headers["x-lampyr-id"])}
    outer = next(one for one in collector.spans if one.name == "/async")
    assert outer.parent == "" and outer.resource["service.name"] == "shop"
    parts = {one.name: one for one in collector.spans if one.parent == outer.id}
    assert set(parts) == {"queue", "handler"} | ({"init"} if cold else set())
    for one in parts.values():
        assert outer.start_ns <= one.start_ns <= one.end_ns <= outer.end_ns
    assert 50e6 <= parts["handler"].end_ns - parts["handler"].start_ns < 20e9
    assert abs(outer.start_ns / 1e9 - time.time()) < 60
    # What it has called is in the same trace, below its handler.
    assert spans["/see"].parent == parts["handler"].id
    seen = parse(answer.json()["traceparent"][0])
    assert seen is not None and seen.trace == outer.trace and seen.sampled
    assert collector.headers[0]["x-key"] == "canary-7d1f"
    assert "canary-7d1f" not in "\n".join(traced.lines)


def test_a_clients_trace_goes_on_in_the_handler(traced: Server, collector: Collector) -> None:
    answer = traced.get("/see", traceparent=SENT, tracestate="a=1")
    (told,) = answer.json()["traceparent"]
    seen = parse(told)
    assert seen is not None and seen.trace == TRACE and seen.span != SPAN and seen.sampled
    assert answer.json()["tracestate"] == ["a=1"]
    until(lambda: collector.of(answer.headers["x-lampyr-id"]), "its spans")
    whole = next(
        one for one in collector.spans if one.attributes.get("faas.invocation_id") == answer.headers["x-lampyr-id"]
    )
    assert (whole.trace, whole.parent) == (TRACE, SPAN)
    handler = next(one for one in collector.spans if one.parent == whole.id and one.name == "handler")
    assert handler.id == seen.span


def test_a_trace_that_nobody_keeps_is_not_sent(traced: Server, collector: Collector) -> None:
    answer = traced.get("/see", traceparent=SENT[:-1] + "0")
    seen = parse(answer.json()["traceparent"][0])
    assert seen is not None and not seen.sampled and seen.trace == TRACE
    later = traced.get("/see").headers["x-lampyr-id"]
    until(lambda: collector.of(later), "spans of a later one")
    assert not any(one.attributes.get("faas.invocation_id") == answer.headers["x-lampyr-id"] for one in collector.spans)


def test_state_without_a_trace_is_not_told(traced: Server) -> None:
    seen = traced.get("/see", tracestate="a=1").json()
    assert seen["tracestate"] == [] and len(seen["traceparent"]) == 1


def test_failures_and_refusals_are_in_traces(traced: Server, collector: Collector) -> None:
    failed = traced.get("/fail", traceparent=f"00-{'e' * 32}-{SPAN}-01").headers["x-lampyr-id"]
    assert [traced.request("POST", "/once").status for _ in range(2)] == [200, 429]
    until(lambda: collector.of(failed), "spans of the failure")
    whole = next(one for one in collector.of(failed) if one.name == "/fail")
    assert whole.failed and whole.attributes["error.type"] == "error"
    assert whole.attributes["http.response.status_code"] == 500
    refused = until(
        lambda: next((one for one in collector.spans if one.attributes.get("lampyr.outcome") == "rate_limited"), None),
        "the refusal",
    )
    assert not [one for one in collector.spans if one.parent == refused.id]


def test_a_collector_that_is_away_is_nobodys_concern(serve: Serve) -> None:
    with collecting() as collector:
        collector.status = 400
        server = serve(PROJECT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        assert server.get("/see").status == 200
        server.log(rf"warning: spans cannot be sent to 127\.0\.0\.1:{collector.port}")
        for _ in range(3):
            assert server.get("/see").status == 200
            time.sleep(0.7)  # each is sent, or not, by itself
        assert sum("spans cannot be sent" in line for line in server.lines) == 1
        collector.status = 200
        answer = server.get("/see")
        until(lambda: collector.of(answer.headers["x-lampyr-id"]), "spans again")
        server.log("spans are sent again")
        # And where control has been killed, another one goes on.
        server.find("lampyr.control").kill()
        answer = server.get("/see")
        until(lambda: collector.of(answer.headers["x-lampyr-id"]), "spans of a new control")


def test_spans_are_sent_to_the_last_at_a_stop(serve: Serve) -> None:
    with collecting() as collector:
        server = serve(PROJECT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        ids = [server.get("/see").headers["x-lampyr-id"] for _ in range(40)]
        assert server.stop() == 0
        assert all(collector.of(id) for id in ids)


def test_a_stop_does_not_wait_for_a_collector_that_is_away(serve: Serve) -> None:
    with collecting() as collector:
        collector.status = 503  # the exporter would try for ten seconds
        server = serve(PROJECT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        assert server.get("/see").status == 200
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 8


def test_the_sampler_picks(serve: Serve) -> None:
    with collecting() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
            "OTEL_SERVICE_NAME": "named",
        }
        server = serve(PROJECT, env=env)
        told = {}
        for _ in range(40):
            answer = server.get("/see")
            told[answer.headers["x-lampyr-id"]] = parse(answer.json()["traceparent"][0])
        last = server.get("/see", traceparent=SENT).headers["x-lampyr-id"]
        until(lambda: collector.of(last), "the last one")
        kept = {one.attributes["faas.invocation_id"] for one in collector.spans if one.name == "/see"}
        assert kept == {id for id, one in told.items() if one is not None and one.sampled} | {last}
        assert 2 < len(kept) < 40
        assert {one.resource["service.name"] for one in collector.spans} == {"named"}


def test_a_mistake_in_the_variables_is_told_and_nothing_else(serve: Serve) -> None:
    server = serve(
        PROJECT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    )
    server.log("warning: spans are sent by http/protobuf only")
    assert server.get("/see").json()["traceparent"] == []


def test_a_call_of_a_stock_sdk_is_in_its_handlers_trace(serve: Serve) -> None:
    route = """
        runtime = "edge"
        from openai import AsyncOpenAI
        client = AsyncOpenAI()

        async def GET(req):
            asked = [{"role": "user", "content": "Hello"}]
            async for chunk in await client.chat.completions.create(model="slow", messages=asked, stream=True):
                if chunk.choices:
                    yield chunk.choices[0].delta.content or ""
    """
    with collecting() as collector, Fake() as fake:
        files = {
            "app/chat/route.py": route,
            "lampyr.toml": f'[providers.openai]\nbase_url = "{fake.url}/v1"\n[prices.slow]\ninput = 10\noutput = 20\n',
            ".env.local": "OPENAI_API_KEY=sk-canary-openai-41d7a90c\n",
        }
        server = serve(files, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        answer = server.get("/chat", traceparent=SENT)
        assert answer.body.decode() == "".join(WORDS), server.lines
        until(lambda: [one for one in collector.spans if one.name == "chat slow"], "the call's span")
        spans = {one.name: one for one in collector.of(answer.headers["x-lampyr-id"])}
    handler, call = spans["handler"], spans["chat slow"]
    assert (call.trace, call.parent) == (TRACE, handler.id)
    assert handler.start_ns <= call.start_ns + 2e6 and call.end_ns <= handler.end_ns + 1e9
    assert call.end_ns - call.start_ns > 0.2e9
    assert call.attributes["gen_ai.provider.name"] == "openai"
    assert call.attributes["gen_ai.usage.input_tokens"] == 7 and call.attributes["gen_ai.usage.output_tokens"] == 3
    assert call.attributes["lampyr.cost_usd"] == pytest.approx((7 * 10 + 3 * 20) / 1e6)
    assert fake.sent[-1].headers["traceparent"] == f"00-{TRACE}-{handler.id}-01"
    assert not any("canary" in str(one) for one in collector.spans)

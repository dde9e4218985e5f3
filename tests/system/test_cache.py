"""Kept answers in a running server: given without the provider, for nothing, and to nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from provider import WORDS, Fake
from serving import Serve, Server, until

KEY = "sk-canary-cache-8d1f"
TEXT = "".join(WORDS)
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
PRICES = "[prices.small]\ninput = 1_000_000\noutput = 1_000_000\n"

SDK = """
from openai import AsyncOpenAI, APIStatusError
client = AsyncOpenAI()
runtime = "edge"
budget = {budget!r}
async def POST(req):
    asked = {{name: value for name, value in (await req.json()).items() if value is not None}}
    create = client.embeddings if "input" in asked else client.chat.completions
    try:
        answer = await create.with_raw_response.create(**asked)
    except APIStatusError as error:
        return Response.json({{"status": error.status_code, "cache": error.response.headers.get("x-lampyr-cache")}})
    return Response(answer.content, headers={{
        "content-type": answer.headers["content-type"], "x-seen": answer.headers.get("x-lampyr-cache", "none"),
    }})
from lampyr import Response
"""
RAW = """
import http.client, json, os
from urllib.parse import urlsplit
import asyncio
runtime = "edge"
async def begun(*kept):
    yield "begun"
    await asyncio.sleep(60)
async def POST(req):
    connection = http.client.HTTPConnection(urlsplit(os.environ["OPENAI_BASE_URL"]).netloc, timeout=20)
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
    connection.request("POST", req.query["path"], await req.bytes(), headers)
    answer = connection.getresponse()
    if "stop" in req.query:
        return Response(begun(connection, answer))
    return {"status": answer.status, "body": answer.read().decode(), "headers": dict(answer.getheaders())}
from lampyr import Response
"""


def files(fake: Fake, cache: str = 'cache = "1h"\n', budget: str = "none", more: str = "") -> dict[str, str]:
    openai = f'[providers.openai]\nbase_url = "{fake.url}/v1"\nretries = 0\n{cache}'
    return {
        "app/chat/route.py": SDK.format(budget=budget),
        "app/other/route.py": SDK.format(budget="none"),
        "lampyr.toml": f'[functions]\nrate_limit = "none"\n{openai}{more}',
        ".env.local": f"OPENAI_API_KEY={KEY}\n",
    }


def ask(server: Server, route: str = "/chat", **asked: Any) -> tuple[str, bytes]:
    """What a function has seen in the header, and its body."""
    answer = server.request("POST", route, json.dumps({**CHAT, **asked}))
    assert answer.status == 200, "\n".join(server.lines)
    return answer.headers.get("x-seen", ""), answer.body


def usage(server: Server, by: str) -> dict[str | None, dict[str, Any]]:
    command = [sys.executable, "-m", "lampyr", "usage", str(server.root), "--by", by, "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {one[by]: one for one in told["groups"]}


def test_a_hit_is_the_same_answer_without_the_provider_and_for_nothing(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, more=PRICES))
        first, body = ask(server)
        assert (first, json.loads(body)["choices"][0]["message"]["content"]) == ("miss", TEXT)
        assert ask(server) == ("hit", body)
        assert len(fake.sent) == 1
        assert ask(server, temperature=0.5)[0] == ask(server, temperature=0.5)[0] == "miss"
        assert ask(server, messages=[{"role": "user", "content": "Hello!"}])[0] == "miss"
        assert len(fake.sent) == 4
        vectors: dict[str, Any] = {"input": ["one"], "messages": None, "temperature": None}
        assert [ask(server, **vectors)[0] for _ in range(2)] == ["miss", "hit"]
        server.log(r"^broker \| /chat openai small 200 hit tokens 0 in, 0 out, [\d.]+ ms$")
        spent = usage(server, "provider")["openai"]
        tokens_of_the_echo = spent["tokens_in"] - 4 * 7
        assert spent["calls"] == spent["invocations"] == 7
        assert (spent["tokens_out"], spent["cost_usd"]) == (4 * 3, 4 * 10.0 + tokens_of_the_echo)
        assert usage(server, "model")["small"]["calls"] == 7
    assert ask(server) == ("hit", body), "the provider is gone"


def test_no_function_reads_what_another_was_answered(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake))
        assert [ask(server, route)[0] for route in ("/chat", "/other", "/chat", "/other")] == [
            "miss",
            "miss",
            "hit",
            "hit",
        ]
        assert len(fake.sent) == 2


def test_without_the_setting_nothing_is_kept_or_said(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, cache=""))
        assert [ask(server)[0] for _ in range(2)] == ["none", "none"]
        assert len(fake.sent) == 2


def test_a_hit_needs_no_budget_and_uses_none(serve: Serve) -> None:
    with Fake() as fake:
        # For the project: at a function whose own is spent the gateway lets nobody in.
        server = serve(files(fake, more='[budget]\nlimit = "25 tokens/month"\n', budget="1000 tokens/day"))
        assert [ask(server)[0] for _ in range(20)] == ["miss", *["hit"] * 19]
        assert ask(server, user="b", max_tokens=1)[0] == "miss"
        # 20 of 25 are used; this one may use all that is left and more, and is under way while others are answered.
        with ThreadPoolExecutor(1) as thread:
            slow = thread.submit(ask, server, model="slow", max_tokens=900)
            until(lambda: len(fake.sent) == 3, "the call at the provider")
            assert ask(server)[0] == "hit"
            assert slow.result()[0] == "miss"


SPENT = """
from openai import OpenAI, RateLimitError
client = OpenAI()
budget = "1 tokens/month"
def ask(text):
    asked = [{"role": "user", "content": text}]
    try:
        answer = client.chat.completions.with_raw_response.create(model="small", messages=asked, temperature=0)
    except RateLimitError:
        return "spent"
    return answer.headers["x-lampyr-cache"]
def POST(): return [ask("one"), ask("one"), ask("two"), ask("one")]
"""


def test_a_hit_is_given_where_the_budget_is_spent(serve: Serve) -> None:
    with Fake() as fake:
        server = serve({**files(fake), "app/spent/route.py": SPENT})
        assert server.request("POST", "/spent").json() == ["miss", "hit", "spent", "hit"]
        assert len(fake.sent) == 1


def test_failures_are_not_kept(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake))
        fake.statuses[:] = [400, 503]
        for status in (400, 503):
            answer = server.request("POST", "/chat", json.dumps(CHAT)).json()
            assert answer == {"status": status, "cache": "miss"}
        assert [ask(server)[0] for _ in range(2)] == ["miss", "hit"]
        assert len(fake.sent) == 3


def test_time_is_over(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, cache='cache = "3s"\n'))
        assert [ask(server)[0] for _ in range(2)] == ["miss", "hit"]
        until(lambda: ask(server)[0] == "miss", "the end of the time")
        assert len(fake.sent) == 2


def test_a_hit_is_masked_like_any_answer(serve: Serve) -> None:
    with Fake() as fake:
        server = serve({**files(fake), "app/raw/route.py": RAW})
        shown = [post(server, "/openai/chat/completions", {**CHAT, "model": "show-key"}) for _ in range(2)]
        assert [lower(one)["x-lampyr-cache"] for one in shown] == ["miss", "hit"]
        assert shown[0]["body"] == shown[1]["body"] and "Bearer ***" in shown[1]["body"]
        assert lower(shown[1])["x-seen"] == lower(shown[0])["x-seen"] and "***" in lower(shown[1])["x-seen"]
        assert KEY not in json.dumps(shown)


def test_a_client_that_leaves_in_the_middle_of_a_hit(serve: Serve) -> None:
    """7 MiB do not fit into the sockets on their way to a function that does not read them."""
    with Fake() as fake:
        server = serve({**files(fake), "app/raw/route.py": RAW})
        large = {**CHAT, "model": "large"}
        assert lower(post(server, "/openai/chat/completions", large))["x-lampyr-cache"] == "miss"
        body = json.dumps(large)
        with server.connect() as client:
            head = f"POST /raw?stop=1&path=/openai/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
            client.sendall(f"{head}\r\n\r\n{body}".encode())
            assert b"begun" in client.recv(4096)
        server.log(r"^broker \| /raw openai large 200 hit client_closed tokens 0 in, 0 out, [\d.]+ ms$")
        again = post(server, "/openai/chat/completions", large)
        assert (lower(again)["x-lampyr-cache"], len(again["body"])) == ("hit", len('{"filling": ""}') + 7 * 1024 * 1024)
        assert len(fake.sent) == 1


def test_a_fallback_has_its_own(serve: Serve) -> None:
    with Fake() as fake, Fake() as second:
        more = f'fallback = ["second"]\n[providers.second]\nbase_url = "{second.url}/v1"\nmodels = ["theirs"]\n'
        server = serve(files(fake, more=more + 'cache = "1h"\n'))
        fake.statuses[:] = [503, 503]
        assert json.loads(ask(server)[1])["model"] == "theirs"
        assert ask(server)[0] == "hit", "of the second, when the first has failed again"
        assert (len(fake.sent), len(second.sent)) == (2, 1)
        assert json.loads(ask(server)[1])["model"] == "small", "what another has answered is not the first one's"
        assert [ask(server)[0] for _ in range(2)] == ["hit", "hit"]
        assert (len(fake.sent), len(second.sent)) == (3, 1)


def post(server: Server, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a function gets that asks without an SDK."""
    found: dict[str, Any] = server.request("POST", f"/raw?path={path}", json.dumps(asked)).json()
    return found


def lower(answer: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in answer["headers"].items()}

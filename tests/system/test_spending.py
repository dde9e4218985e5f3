"""What calls to providers cost: in the ledger, in budgets, and at the provider that is not asked any more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from provider import Fake
from serving import WITHIN_S, Serve, Server, until

from lampyr.broker.prices import published
from lampyr.model import choice

# The fake provider's own: 7 tokens in, 3 out.
TOKENS = 10

CHAT = """
from openai import AsyncOpenAI, RateLimitError
client = AsyncOpenAI()
runtime = "edge"
budget = {budget!r}
async def POST(req):
    asked = {{"messages": [{{"role": "user", "content": "Hello"}}], **await req.json()}}
    try:
        done = await client.chat.completions.create(**asked)
    except RateLimitError as error:
        return Response.json(error.body, 429, {{"x-seen": error.response.headers.get("retry-after", "")}})
    return done.choices[0].message.content
from lampyr import Response
"""
STREAM = """
from openai import AsyncOpenAI
client = AsyncOpenAI()
runtime = "edge"
async def GET(req):
    asked = [{"role": "user", "content": "Hello" * 40}]
    model = req.query.get("model", "small")
    stream = await client.chat.completions.create(model=model, messages=asked, stream=True)
    async for chunk in stream:
        if chunk.choices:
            yield chunk.choices[0].delta.content
"""
ANTHROPIC = """
from anthropic import Anthropic, RateLimitError
client = Anthropic()
budget = "1 tokens/month"
def POST():
    try:
        client.messages.create(model="claude", max_tokens=9, messages=[{"role": "user", "content": "Hello"}])
        return "made"
    except RateLimitError as error:
        return str(error.body)
"""
KEYS = "OPENAI_API_KEY=sk-canary-spending-1\nANTHROPIC_API_KEY=sk-canary-spending-2\n"


def files(fake: Fake, budget: str | None = None, more: str = "", **routes: str) -> dict[str, str]:
    settings = f'[functions]\nrate_limit = "none"\n[providers.openai]\nbase_url = "{fake.url}/v1"\n'
    settings += f'[providers.anthropic]\nbase_url = "{fake.url}"\n{more}'
    code = {"chat": CHAT.format(budget=budget or "none"), **routes}
    return {
        **{f"app/{name}/route.py": text for name, text in code.items()},
        "lampyr.toml": settings,
        ".env.local": KEYS,
    }


def chat(server: Server, **asked: Any) -> int:
    return server.request("POST", "/chat", json.dumps({"model": "small", "max_tokens": 9, **asked})).status


def usage(server: Server, by: str) -> dict[str | None, dict[str, Any]]:
    command = [sys.executable, "-m", "lampyr", "usage", str(server.root), "--by", by, "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {one[by]: one for one in told["groups"]}


def test_tokens_and_cost_by_function_provider_and_model(serve: Serve) -> None:
    prices = '[prices.small]\ninput = 1_000_000\noutput = 2_000_000\n[prices."gpt-5-mini"]\ninput = 3_000_000\n'
    with Fake() as fake:
        server = serve(files(fake, more=prices, stream=STREAM, anthropic=ANTHROPIC.replace("1 tokens", "99 tokens")))
        assert [chat(server), chat(server), chat(server, model="gpt-5-mini")] == [200] * 3
        assert server.get("/stream").body.decode() == "Fireflies blink"
        assert server.request("POST", "/anthropic").body == b"made"
    server.log(r"^broker \| /chat openai small 200 tokens 7 in, 3 out, 13\.000000 USD, [\d.]+ ms$")
    server.log(r'^lampyr: warning: no price is known of "claude" at anthropic; its calls count as 0 USD$')
    by_function = usage(server, "function")
    spent = {name: (one["tokens_in"], one["tokens_out"], one["cost_usd"]) for name, one in by_function.items()}
    assert spent == {"/chat": (21, 9, 47.0), "/stream": (7, 3, 13.0), "/anthropic": (11, 1, 0.0)}
    by_provider = usage(server, "provider")
    assert {name: (one["invocations"], one["calls"], one["cost_usd"]) for name, one in by_provider.items()} == {
        "openai": (4, 4, 60.0),
        "anthropic": (1, 1, 0.0),
    }
    by_model = usage(server, "model")
    assert {name: (one["calls"], one["tokens_in"]) for name, one in by_model.items()} == {
        "small": (3, 21),
        "gpt-5-mini": (1, 7),
        "claude": (1, 11),
    }


CLIENTS = """
import asyncio, os
max_duration = 60
base, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
url, headers = f"{base}/chat/completions", {"authorization": "Bearer " + key}
asked = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}

def _requests():
    import requests
    requests.post(url, json=asked, headers=headers).raise_for_status()

def _httpx():
    import httpx
    httpx.post(url, json=asked, headers=headers).raise_for_status()

def _httpx2():
    import httpx2
    httpx2.post(url, json=asked, headers=headers).raise_for_status()

def _openai():
    from openai import OpenAI
    OpenAI().chat.completions.create(**asked)

async def _ask():
    import aiohttp
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.post(url, json=asked, headers=headers):
        pass

def _aiohttp():
    asyncio.run(_ask())

def GET(req):
    globals()["_" + req.query.get("client")]()
    return "made"
"""


def test_a_client_that_is_imported_in_a_handler_says_whose_call_it_is(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, clients=CLIENTS))
        for made, client in enumerate(("requests", "httpx", "httpx2", "openai", "aiohttp"), 1):
            assert server.get(f"/clients?client={client}").body == b"made"
            assert usage(server, "outcome")["ok"]["tokens_in"] == 7 * made, client
        assert not any("x-lampyr-id" in one.headers for one in fake.sent)


AZURE = """
import os, httpx2
from openai import AzureOpenAI
base, key = os.environ["AZURE_BASE_URL"], os.environ["AZURE_API_KEY"]
client = AzureOpenAI(azure_endpoint=base, api_key=key, api_version="2024-10-21")
def GET():
    asked = [{"role": "user", "content": "Hello"}]
    done = client.chat.completions.create(model="mine", messages=asked)
    url = f"{base}/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    plain = httpx2.post(url, json={"messages": asked}, headers={"api-key": key})
    return [done.choices[0].message.content, plain.status_code]
"""


def test_a_model_that_only_the_path_names_has_its_price(serve: Serve) -> None:
    with Fake() as fake:
        azure = f'[providers.azure]\nbase_url = "{fake.url}"\nsecret = "MY_KEY"\npaths = ["/openai/deployments"]\n'
        project = files(fake, more=f"{azure}[prices.mine]\ninput = 1_000_000\n", azure=AZURE)
        server = serve({**project, ".env.local": KEYS + "MY_KEY=sk-canary-azure\n"})
        assert server.get("/azure").json() == ["Fireflies blink", 200]
        assert [one.headers["api-key"] for one in fake.sent] == ["sk-canary-azure"] * 2
        assert usage(server, "model")["mine"]["calls"] == 2
        assert usage(server, "provider")["azure"]["cost_usd"] == 14


HERE = """
from openai import OpenAI
def GET():
    asked = {"model": "local", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    done = OpenAI().chat.completions.create(**asked)
    list(OpenAI().chat.completions.create(**asked, stream=True))
    return done.model
"""


@pytest.mark.parametrize("kind", ["local", "echo"])
def test_a_model_on_this_machine_has_its_name_in_the_ledger(serve: Serve, kind: str) -> None:
    code = "max_duration = 60\n" + HERE
    server = serve({"app/here/route.py": code, "lampyr.toml": f'[providers.here]\nkind = "{kind}"\n'})
    who = choice.status() if kind == "local" else choice.Status(backend="echo", model="echo")
    assert server.get("/here").body.decode() == who.model
    name = "smollm2" if who.backend == "local" else "echo"
    assert {name: one["calls"] for name, one in usage(server, "model").items()} == {name: 2}
    assert usage(server, "provider")["here"]["calls"] == 2


def test_published_prices(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake))
        assert chat(server, model="gpt-5-mini-2025-08-07") == 200
        price = published()["openai", "gpt-5-mini"]
        expected = (7 * price.input + 3 * price.output) / 1e6
        assert usage(server, "model")["gpt-5-mini-2025-08-07"]["cost_usd"] == pytest.approx(expected, abs=1e-6)


def test_a_call_whose_client_left_costs_what_it_had_cost_by_then(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, more="[prices.hold]\ninput = 1_000_000\noutput = 1_000_000\n", stream=STREAM))
        with server.connect() as client:
            client.sendall(b"GET /stream?model=hold HTTP/1.1\r\nhost: x\r\n\r\n")
            heard = b""
            while b"Fire" not in heard:
                heard += client.recv(4096)
        assert fake.left.wait(WITHIN_S), "the connection to the provider closes"
        server.log(r"^broker \| /stream openai hold 200 client_closed tokens ~\d+ in, 1 out, \d+\.0+ USD")
        found = until(lambda: usage(server, "outcome").get("client_closed"), "its row")
        assert found["tokens_out"] == 1 and 45 <= found["tokens_in"] <= 60
        assert found["cost_usd"] == found["tokens_in"] + 1
        assert not usage(server, "function")["/stream"]["errors"]


def all_at_once(server: Server, count: int = 50) -> Counter[int]:
    with ThreadPoolExecutor(count) as threads:
        return Counter(threads.map(lambda _: chat(server, model="slow"), range(count)))


@pytest.mark.parametrize("budget", [f"{10 * TOKENS} tokens/month", "0.1 USD/month"])
def test_of_fifty_calls_at_once_ten_reach_the_provider(serve: Serve, budget: str) -> None:
    with Fake() as fake:
        server = serve(files(fake, budget, "[prices.slow]\ninput = 1000\noutput = 1000\n"))
        assert all_at_once(server) == {200: 10, 429: 40}
        assert len(fake.sent) == 10
        assert chat(server, model="slow") == 429
        assert len(fake.sent) == 10
        server.log(rf"the budget of /chat, {budget}, is used")


def test_a_budget_of_the_project_holds_for_all_functions(serve: Serve) -> None:
    with Fake() as fake:
        both = files(fake, None, f'[budget]\nlimit = "{10 * TOKENS} tokens/month"\n', other=CHAT.format(budget="none"))
        server = serve(both)
        for _ in range(5):
            assert chat(server) == 200
            assert server.request("POST", "/other", '{"model": "small"}').status == 200
        assert chat(server) == server.request("POST", "/other", '{"model": "small"}').status == 429
        assert len(fake.sent) == 10


def test_the_count_survives_kill_9(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, f"{10 * TOKENS} tokens/month"))
        for module in ("lampyr.broker", "lampyr.gateway", "lampyr.control"):
            assert chat(server) == 200
            old = server.find(module)
            old.kill()
            until(lambda module=module, old=old: server.find(module).pid != old.pid, f"another {module}")
        assert all_at_once(server) == {200: 7, 429: 43}
        assert len(fake.sent) == 10


def test_what_a_killed_broker_had_reserved_is_spent(serve: Serve) -> None:
    """Its provider may have been asked, and nobody will ever know what for."""
    with Fake() as fake:
        server = serve(files(fake, f"{10 * TOKENS} tokens/month", stream=STREAM))
        with ThreadPoolExecutor(1) as thread:
            cut = thread.submit(chat, server, model="sleep", max_tokens=10 * TOKENS)
            until(lambda: fake.sent, "the call at the provider")
            old = server.find("lampyr.broker")
            old.kill()
            until(lambda: server.find("lampyr.broker").pid != old.pid, "another broker")
            assert chat(server) == 429
            assert cut.result() != 200
        spent = usage(server, "provider")["openai"]
        assert (spent["calls"], spent["tokens_out"]) == (1, 10 * TOKENS), "and in the ledger"


def test_a_spent_budget_is_an_error_of_the_sdk_that_it_does_not_try_again(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, "1 tokens/month", anthropic=ANTHROPIC))
        before = server.request("POST", "/chat", json.dumps({"model": "small"}))
        assert before.status == 200, "one call uses up what is left"
        assert server.request("POST", "/anthropic").body == b"made"
        # In the same invocation's time: the gateway lets nobody in any more.
        refused = server.request("POST", "/chat", json.dumps({"model": "small"}))
        assert (refused.status, refused.error) == (429, "BUDGET_EXCEEDED")
        assert int(refused.headers["retry-after"]) > 0
        assert len(fake.sent) == 2


TWICE = """
from openai import OpenAI, RateLimitError
from anthropic import Anthropic
import anthropic
budget = "1 tokens/month"
def POST():
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    OpenAI().chat.completions.create(model="small", **asked)
    said = []
    for create, model, error in (
        (OpenAI().chat.completions.create, "small", RateLimitError),
        (Anthropic().messages.create, "claude", anthropic.RateLimitError),
    ):
        try:
            create(model=model, **asked)
        except error as caught:
            said.append([caught.response.status_code, caught.response.headers["x-should-retry"], str(caught)])
    return {"said": said}
"""


def test_within_one_invocation_both_sdks_raise_their_own_error(serve: Serve) -> None:
    with Fake() as fake:
        server = serve(files(fake, twice=TWICE))
        said = server.request("POST", "/twice").json()["said"]
        assert [one[:2] for one in said] == [[429, "false"], [429, "false"]]
        assert all("The budget of this function, 1 tokens/month, is spent." in text for _, _, text in said)
        assert len(fake.sent) == 1
        until(lambda: sum(line.startswith("broker | /twice") for line in server.lines) == 3, "a line for each")

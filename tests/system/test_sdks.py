"""Stock SDKs, LangChain and a plain HTTP client in functions, unchanged: to a provider elsewhere, and to the echo."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider import Fake
from serving import Serve, Server, ended, started_for, until, write

KEYS = {"OPENAI_API_KEY": "sk-canary-sdks-51c07", "ANTHROPIC_API_KEY": "sk-ant-canary-sdks-90e"}
OPENAI = """
from openai import AsyncOpenAI, OpenAI
client, sync = AsyncOpenAI(), OpenAI()
ASKED = [{"role": "user", "content": "Hello"}]

async def chat(stream):
    found = await client.chat.completions.create(model="small", messages=ASKED, stream=stream)
    if not stream:
        return found.choices[0].message.content
    return "".join([one.choices[0].delta.content or "" async for one in found if one.choices])

async def responses(stream):
    found = await client.responses.create(model="small", input="Hello", stream=stream)
    if not stream:
        return found.output_text
    return "".join([one.delta async for one in found if one.type == "response.output_text.delta"])

async def embeddings(stream):
    found = await client.embeddings.create(model="small", input=["one", "two", "one"])
    return [len(one.embedding) for one in found.data] + [found.data[0].embedding == found.data[2].embedding]

async def models(stream):
    return [one.id async for one in client.models.list()]

async def GET(req):
    return {"said": await globals()[req.query["what"]]("stream" in req.query)}

def POST(req):
    return {"said": sync.chat.completions.create(model="small", messages=ASKED).choices[0].message.content}
"""
ANTHROPIC = """
from anthropic import AsyncAnthropic
client = AsyncAnthropic()
ASKED = {"model": "claude", "max_tokens": 99, "messages": [{"role": "user", "content": "Hello"}]}
async def GET(req):
    if "stream" not in req.query:
        return {"said": (await client.messages.create(**ASKED)).content[0].text}
    async with client.messages.stream(**ASKED) as stream:
        said = "".join([text async for text in stream.text_stream])
        return {"said": said, "tokens": (await stream.get_final_message()).usage.output_tokens}
"""
LANGCHAIN = """
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="small", api_key=None)
async def GET(req):
    if "stream" in req.query:
        return {"said": "".join([one.content async for one in model.astream("Hello")])}
    return {"said": (await model.ainvoke("Hello")).content}
def POST(req):
    return {"said": model.invoke("Hello").content}
"""
HTTPX2 = """
import httpx2, os
async def GET(req):
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    asked = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "stream": "stream" in req.query}
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    async with httpx2.AsyncClient() as client:
        async with client.stream("POST", url, json=asked, headers=headers) as answer:
            return {"said": (await answer.aread()).decode(), "status": answer.status_code}
"""
FILES = {
    "app/openai/route.py": OPENAI,
    "app/anthropic/route.py": ANTHROPIC,
    "app/langchain/route.py": LANGCHAIN,
    "app/httpx2/route.py": HTTPX2,
}
ECHOED = "This is the echo, not a language model. You wrote: Hello"


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with Fake() as provider:
        yield provider


@pytest.fixture(scope="module", params=["elsewhere", "echo"])
def server(fake: Fake, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("sdks") / "project"
    settings = "[providers.echo]\n"
    if request.param == "elsewhere":
        settings = f'[providers.openai]\nbase_url = "{fake.url}/v1"\n[providers.anthropic]\nbase_url = "{fake.url}"\n'
    keys = "".join(f"{name}={key}\n" for name, key in KEYS.items())
    write(root, {**FILES, "lampyr.toml": f'[functions]\nrate_limit = "none"\n{settings}', ".env.local": keys})
    server = Server(root, "start")
    yield server
    server.stop()


def expected(server: Server) -> str:
    return ECHOED if "echo" in (server.root / "lampyr.toml").read_text() else "Fireflies blink"


@pytest.mark.parametrize("how", ["", "&stream"])
@pytest.mark.parametrize(
    ("route", "method"),
    [
        ("/openai?what=chat", "GET"),
        ("/openai?", "POST"),
        ("/anthropic?", "GET"),
        ("/langchain?", "GET"),
        ("/langchain?", "POST"),
    ],
)
def test_a_chat(server: Server, route: str, method: str, how: str) -> None:
    answer = server.request(method, route + how)
    assert (answer.status, answer.json()["said"]) == (200, expected(server)), "\n".join(server.lines[-20:])


@pytest.mark.parametrize("how", ["", "&stream"])
def test_responses(server: Server, how: str) -> None:
    answer = server.get(f"/openai?what=responses{how}")
    assert (answer.status, answer.json()) == (200, {"said": ECHOED}), "\n".join(server.lines[-20:])
    server.log(r"^broker \| /openai (?:openai small|echo echo) 200 tokens 1 in, \d+ out")


def test_embeddings(server: Server) -> None:
    answer = server.get("/openai?what=embeddings")
    assert answer.json() == {"said": [256, 256, 256, True]}
    server.log(r"^broker \| /openai (?:openai small|echo echo) 200 tokens 3 in, 0 out")


def test_models(server: Server) -> None:
    assert server.get("/openai?what=models").json()["said"] in (["small"], ["echo"])


@pytest.mark.parametrize("how", ["", "?stream"])
def test_a_plain_http_client(server: Server, how: str) -> None:
    answer = server.get(f"/httpx2{how}").json()
    assert answer["status"] == 200
    assert answer["said"].count("data: ") > 3 if how else json.loads(answer["said"])["choices"]


def test_what_they_have_used_is_in_the_row_of_their_invocation(server: Server) -> None:
    answer = server.get("/anthropic")
    assert answer.status == 200
    told = subprocess.run(
        [sys.executable, "-m", "lampyr", "usage", str(server.root), "--json"], capture_output=True, check=True
    )
    found = {one["function"]: one for one in json.loads(told.stdout)["groups"]}["/anthropic"]
    assert found["tokens_out"] >= 1 and found["calls"] == found["invocations"]


# --- models on this machine


def test_the_model_answers_nobody_but_the_broker(serve: Serve) -> None:
    server = serve({**FILES, "lampyr.toml": "[providers.echo]\n"})
    assert server.get("/openai?what=chat").json() == {"said": ECHOED}
    process = server.find("lampyr.model")
    (port,) = {one.laddr.port for one in process.net_connections("tcp") if one.status == "LISTEN"}
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "x"}]})
    for line in ("POST /v1/chat/completions", "POST /v1/responses", "GET /v1/models"):
        for more in ("", "authorization: Bearer local\r\n"):
            head = f"{line} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}"
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
                assert client.recv(100).startswith(b"HTTP/1.1 401 "), line


def test_a_model_process_comes_with_the_first_call_and_again_after_its_end(serve: Serve) -> None:
    server = serve({**FILES, "lampyr.toml": "[providers.echo]\n"})
    assert not list(started_for("lampyr.model", server.processes()))
    assert server.get("/openai?what=chat").status == 200
    old = server.find("lampyr.model")
    old.kill()
    until(lambda: ended(old), "its end")
    assert server.get("/openai?what=chat").json() == {"said": ECHOED}


# --- one after the other


def fallback(fake: Fake, more: str = "") -> dict[str, Any]:
    settings = f"""
        [functions]
        rate_limit = "none"
        [providers.openai]
        base_url = "{fake.url}/v1"
        retries = 0
        timeout = 30
        fallback = ["second", "echo"]
        [providers.second]
        base_url = "{fake.url}/second"
        models = ["their-own"]
        retries = 1
        {more}
        [providers.echo]
    """
    return {
        "app/openai/route.py": OPENAI,
        "lampyr.toml": settings,
        ".env.local": f"OPENAI_API_KEY={KEYS['OPENAI_API_KEY']}\n",
    }


def test_another_provider_is_asked_where_one_fails(serve: Serve, fake: Fake, tmp_path: Path) -> None:
    server = serve(fallback(fake))
    for statuses, paths, said in (
        ([], ["/v1"], "Fireflies blink"),
        ([503], ["/v1", "/second"], "Fireflies blink"),
        ([429], ["/v1", "/second"], "Fireflies blink"),
        ([0, 502], ["/v1", "/second", "/second"], "Fireflies blink"),
        ([500, 0, 0], ["/v1", "/second", "/second"], ECHOED),
    ):
        before = len(fake.sent)
        fake.statuses[:] = statuses
        assert server.get("/openai?what=chat&stream").json() == {"said": said}, statuses
        sent = fake.sent[before:]
        assert [one.path for one in sent] == [f"{path}/chat/completions" for path in paths], statuses
        assert [one.json()["model"] for one in sent] == ["small", "their-own", "their-own"][: len(sent)]
        assert all("authorization" not in one.headers for one in sent[1:]), "the key is for the first alone"
    server.log(r"^broker \| /openai echo echo 200 tokens 1 in, \d+ out")


def test_what_the_provider_has_refused_is_nobody_elses_to_answer(serve: Serve, fake: Fake) -> None:
    server = serve(fallback(fake))
    before = len(fake.sent)
    fake.statuses[:] = [400]
    assert server.get("/openai?what=chat").status == 500
    assert len(fake.sent) == before + 1

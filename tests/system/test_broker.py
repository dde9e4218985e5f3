"""The broker in a running server: stock SDKs reach the provider, and its key is nowhere in the function."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from provider import WORDS, Fake, Sent
from serving import WITHIN_S, Serve, Server, until, write

from lampyr.broker.call import MAX_BODY_BYTES

KEYS = {"OPENAI_API_KEY": "sk-canary-openai-41d7a90c", "ANTHROPIC_API_KEY": "sk-ant-canary-77b1e3f0"}
TEXT = "".join(WORDS)
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}

BLOCKING = """
from openai import OpenAI
client = OpenAI()
def GET(req):
    model = req.query.get("model", "small")
    done = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}])
    return done.choices[0].message.content
"""

FILES = {
    "app/openai/route.py": BLOCKING,
    "app/stream/route.py": """
        from openai import AsyncOpenAI
        client = AsyncOpenAI()
        runtime = "edge"
        async def GET(req):
            asked = [{"role": "user", "content": "Hello"}]
            model = req.query.get("model", "small")
            stream = await client.chat.completions.create(model=model, messages=asked, stream=True)
            async for chunk in stream:
                if chunk.choices:
                    yield chunk.choices[0].delta.content
    """,
    "app/anthropic/route.py": """
        from anthropic import AsyncAnthropic
        client = AsyncAnthropic()
        async def GET():
            asked = [{"role": "user", "content": "Hello"}]
            async with client.messages.stream(model="claude", max_tokens=9, messages=asked) as stream:
                async for text in stream.text_stream:
                    yield text
    """,
    "app/raw/route.py": """
        import http.client, json, os
        from urllib.parse import urlsplit
        async def POST(req):
            asked = await req.json()
            url = urlsplit(os.environ["OPENAI_BASE_URL"])
            connection = http.client.HTTPConnection(url.netloc, timeout=9)
            token = asked.get("token") or os.environ.get("OPENAI_API_KEY", "")
            headers = {"authorization": "Bearer " + token, **asked.get("headers", {})}
            body = "x" * asked["size"] if "size" in asked else json.dumps(asked["body"])
            connection.request(asked.get("method", "POST"), asked["path"], body, headers)
            answer = connection.getresponse()
            return {"status": answer.status, "body": answer.read().decode(), "headers": dict(answer.getheaders())}
        def GET(): return {name: value for name, value in os.environ.items() if "API_KEY" in name or "BASE" in name}
    """,
    "app/other/route.py": """
        import http.client, json, os
        from urllib.parse import urlsplit
        def call(token):
            connection = http.client.HTTPConnection(urlsplit(os.environ["OPENAI_BASE_URL"]).netloc, timeout=9)
            body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hello"}]})
            connection.request("POST", "/openai/chat/completions", body, {"authorization": "Bearer " + token})
            return connection.getresponse().status
        async def POST(req):
            asked = await req.json()
            return {"own": call(os.environ["OPENAI_API_KEY"]), "another's": call(asked["token"])}
    """,
    "app/late/route.py": "max_duration = 2\n" + BLOCKING,
    "app/none/route.py": "secrets = []\nimport os\ndef GET(): return sorted(os.environ)\n",
    ".env.local": "".join(f"{name}={key}\n" for name, key in KEYS.items()) + f"COPY_KEY={KEYS['OPENAI_API_KEY']}\n",
}


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with Fake() as provider:
        yield provider


@pytest.fixture(scope="module")
def server(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("broker") / "project"
    write(root, {**FILES, "lampyr.toml": settings(fake)})
    server = Server(root, "start")
    yield server
    server.stop()


def settings(fake: Fake, more: str = "") -> str:
    rate = '[functions]\nrate_limit = "none"\n'
    openai = f'[providers.openai]\nbase_url = "{fake.url}/v1"\n{more}'
    return f'{rate}{openai}\n[providers.anthropic]\nbase_url = "{fake.url}"\n'


def raw(server: Server, path: str, **asked: Any) -> Any:
    """What a function of this server gets for a request of its own making."""
    return server.request("POST", "/raw", json.dumps({"path": path, **asked})).json()


def call(server: Server, token: str, path: str = "/openai/chat/completions") -> int:
    """The status of a call that no function makes."""
    url = server.get("/raw").json()["OPENAI_BASE_URL"].split("/")[2]
    connection = http.client.HTTPConnection(url, timeout=10)
    connection.request("POST", path, json.dumps(CHAT), {"authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_stock_sdks_reach_the_provider_with_the_real_key(server: Server, fake: Fake) -> None:
    for route in ("/openai", "/stream", "/anthropic"):
        answer = server.get(route)
        assert (answer.status, answer.body.decode()) == (200, TEXT), "\n".join(server.lines)
    openai, stream, anthropic = fake.sent[-3:]
    assert openai.path == stream.path == "/v1/chat/completions"
    assert openai.headers["authorization"] == stream.headers["authorization"] == f"Bearer {KEYS['OPENAI_API_KEY']}"
    assert (anthropic.path, anthropic.headers["x-api-key"]) == ("/v1/messages", KEYS["ANTHROPIC_API_KEY"])
    assert "authorization" not in anthropic.headers
    assert openai.headers["host"] == fake.url.removeprefix("http://")


def test_tokens_are_counted_for_each_call(server: Server) -> None:
    server.get("/openai")
    server.get("/anthropic")
    assert server.get("/stream").body.decode() == TEXT
    server.log(r"^broker \| /stream openai small 200 tokens 7 in, 3 out, [\d.]+ ms$")
    server.log(r"^broker \| /openai openai small 200 tokens 7 in, 3 out, [\d.]+ ms$")
    server.log(r"^broker \| /anthropic anthropic claude 200 tokens 11 in, 5 out, [\d.]+ ms$")


def test_the_key_is_nowhere_a_function_or_a_reader_of_logs_looks(server: Server) -> None:
    server.get("/openai")
    shown = json.dumps(server.get("/raw").json()) + "\n".join(server.lines)
    assert "lampyr-" in shown
    assert not any(key in shown for key in KEYS.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the memory of other users' processes")
def test_the_key_is_in_the_memory_of_no_function(server: Server) -> None:
    server.get("/openai")
    placeholder = server.get("/raw").json()["OPENAI_API_KEY"]
    held = [memory for process in server.processes() if (memory := memory_of_a_function(process))]
    assert any(placeholder.encode() in memory for memory in held)
    assert not any(key.encode() in memory for memory in held for key in KEYS.values())


def memory_of_a_function(process: psutil.Process) -> bytes:
    """What a snapshot or an instance can write to; nothing of other processes."""
    try:
        if "lampyr.runtime.snapshot" not in process.cmdline():
            return b""
        maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        areas = [[int(one, 16) for one in line.split()[0].split("-")] for line in maps if " rw-p " in line]
        with open(f"/proc/{process.pid}/mem", "rb", 0) as memory:
            return b"".join(os.pread(memory.fileno(), end - start, start) for start, end in areas)
    except (psutil.Error, OSError):
        return b""


def test_what_holds_the_key_stays_away_too(server: Server) -> None:
    assert "COPY_KEY" not in server.get("/raw").json()
    server.log(r"^lampyr: warning: .*no function gets COPY_KEY: it holds the value of OPENAI_API_KEY, which stays")


def test_who_may_not_have_the_key_may_not_call(server: Server) -> None:
    names = server.get("/none").json()
    assert not any(name.endswith(("API_KEY", "BASE_URL")) for name in names)


def test_no_process_was_started_with_a_key(server: Server) -> None:
    server.get("/openai")
    for process in server.processes():
        try:
            told = (repr(process.cmdline()), Path(f"/proc/{process.pid}/environ").read_text())
        except (psutil.Error, OSError):
            continue
        assert not any(key in text for key in KEYS.values() for text in told)


def test_a_wrong_placeholder_is_refused(server: Server, fake: Fake) -> None:
    before = len(fake.sent)
    for token in ("", "lampyr-0123", "local"):
        assert raw(server, "/openai/chat/completions", token=token or " ", body=CHAT)["status"] == 401
    assert len(fake.sent) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="functions have user ids of their own where the server may give them")
def test_a_placeholder_is_worthless_to_everybody_else(server: Server, fake: Fake) -> None:
    token = server.get("/raw").json()["OPENAI_API_KEY"]
    assert raw(server, "/openai/chat/completions", token=token, body=CHAT)["status"] == 200
    before = len(fake.sent)
    assert call(server, token) == 401  # another process of this machine, the server's own user
    borrowed = server.request("POST", "/other", json.dumps({"token": token})).json()
    assert borrowed == {"own": 200, "another's": 401}
    assert len(fake.sent) == before + 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/openai/files", 403),
        ("/openai/models/../files", 404),
        ("/openai/models/%2e%2e/files", 404),
        ("/openai//chat/completions", 404),
        ("/openai@127.0.0.1:9/chat/completions", 403),
        ("/elsewhere/chat/completions", 403),
        ("http://127.0.0.1:9/openai/chat/completions", 421),
    ],
)
def test_no_other_place_is_reached(server: Server, fake: Fake, path: str, status: int) -> None:
    before = len(fake.sent)
    assert raw(server, path, body=CHAT)["status"] == status
    assert len(fake.sent) == before


def test_headers_of_the_caller_change_nothing(server: Server, fake: Fake) -> None:
    games = {
        "x-forwarded-host": "127.0.0.1:9",
        "cookie": "a=b",
        "proxy-authorization": "x",
        "x-http-method-override": "PUT",
    }
    assert raw(server, "/openai/chat/completions", body=CHAT, headers={**games, "openai-beta": "kept"})["status"] == 200
    sent = fake.sent[-1].headers
    assert not sent.keys() & games.keys()
    assert sent["openai-beta"] == "kept"
    assert raw(server, "/openai/chat/completions", body=CHAT, headers={"host": "127.0.0.1:9"})["status"] == 421


def test_a_redirect_is_not_followed(server: Server) -> None:
    answer = raw(server, "/openai/chat/completions", body={**CHAT, "model": "redirect"})
    assert answer["status"] == 502
    assert "location" not in {name.lower() for name in answer["headers"]}


def test_a_key_that_the_provider_shows_is_masked(server: Server) -> None:
    answer = raw(server, "/openai/chat/completions", body={**CHAT, "model": "echo-key"})
    assert answer["status"] == 401
    assert "Bearer ***" in answer["body"]
    assert "Bearer ***" in {name.lower(): value for name, value in answer["headers"].items()}["x-seen"]


@pytest.mark.parametrize("model", ["echo-key", "show-key"])
def test_a_key_in_x_api_key_that_the_provider_shows_is_masked(server: Server, fake: Fake, model: str) -> None:
    """In errors and in answers, in their bodies and headers, and in streams, wherever they are cut."""
    key = KEYS["ANTHROPIC_API_KEY"]
    whole = raw(server, "/anthropic/v1/messages", body={**CHAT, "model": model})
    seen = {name.lower(): value for name, value in whole["headers"].items()}["x-seen"]
    assert all("'x-api-key': '***'" in text.lower() for text in (whole["body"], seen))
    stream = raw(server, "/anthropic/v1/messages", body={**CHAT, "model": model, "stream": True})
    assert "***" in stream["body"]
    assert key not in json.dumps([whole, stream])
    assert fake.sent[-1].headers["x-api-key"] == key, "it was there to be shown"


@pytest.mark.parametrize("first", [[503], [0], [502, 0]], ids=str)
def test_it_tries_again_before_the_first_byte(server: Server, fake: Fake, first: list[int]) -> None:
    before = len(fake.sent)
    fake.statuses[:] = first
    assert server.get("/openai").body.decode() == TEXT
    assert len(fake.sent) == before + len(first) + 1


def test_the_sdk_does_not_try_again_what_was_tried_again(server: Server, fake: Fake) -> None:
    before = len(fake.sent)
    fake.statuses[:] = [503, 503, 503]
    assert server.get("/openai").status == 500
    assert len(fake.sent) == before + 3


def test_a_client_that_leaves_closes_the_call(server: Server, fake: Fake) -> None:
    fake.left.clear()
    with server.connect() as client:
        client.sendall(b"GET /stream?model=hold HTTP/1.1\r\nhost: x\r\n\r\n")
        heard = b""
        while b"Fire" not in heard:
            heard += client.recv(4096)
        assert not fake.left.is_set()
    assert fake.left.wait(WITHIN_S)
    server.log(r"^broker \| /stream openai hold 200 client_closed tokens ~\d+ in, 1 out")


def test_a_function_that_is_over_time_closes_the_call(server: Server, fake: Fake) -> None:
    until(lambda: server.get("/late").status == 200, "one that is warm: the SDK has much to do in its first call")
    fake.left.clear()
    assert server.get("/late?model=hold").status == 504
    assert fake.left.wait(WITHIN_S)
    server.log(r"^broker \| /late openai hold 200 client_closed ")


def test_a_body_that_is_too_large_is_refused(server: Server, fake: Fake) -> None:
    before = len(fake.sent)
    answer = raw(server, "/openai/chat/completions", size=MAX_BODY_BYTES + 1)
    assert answer["status"] == 413
    assert len(fake.sent) == before


def test_a_provider_that_is_away_or_slow(serve: Serve) -> None:
    with Fake() as fake:
        raw_only = {"app/raw/route.py": FILES["app/raw/route.py"], ".env.local": FILES[".env.local"]}
        server = serve({**raw_only, "lampyr.toml": settings(fake, "timeout = 1\nretries = 1\n")})
        slow = {**CHAT, "model": "sleep"}
        answer = raw(server, "/openai/chat/completions", body=slow)
        assert (answer["status"], "has not answered in time" in answer["body"]) == (504, True)
    answer = raw(server, "/openai/chat/completions", body=CHAT)
    assert (answer["status"], "cannot be reached" in answer["body"]) == (502, True)
    assert KEYS["OPENAI_API_KEY"] not in answer["body"]


def test_the_tokens_of_a_stream_are_for_those_who_ask(server: Server) -> None:
    stream = {**CHAT, "stream": True}
    plain = raw(server, "/openai/chat/completions", body=stream)["body"]
    asked = raw(server, "/openai/chat/completions", body={**stream, "stream_options": {"include_usage": True}})["body"]
    assert plain.count("data: ") == len(WORDS) + 1 and '"total_tokens"' not in plain
    assert asked.count("data: ") == len(WORDS) + 2 and '"total_tokens"' in asked


def test_a_key_of_the_vault_for_some_functions_and_its_next_value(serve: Serve, tmp_path: Path) -> None:
    def secret(value: str) -> None:
        command = [sys.executable, "-m", "lampyr", "secrets", "set", "OPENAI_API_KEY", "--only", "/openai"]
        subprocess.run(command, cwd=tmp_path / "project0", input=value, text=True, check=True, capture_output=True)

    files = {name: text for name, text in FILES.items() if "openai" in name or "raw" in name}
    with Fake() as fake:
        write(tmp_path / "project0", {**files, "lampyr.toml": settings(fake)})
        secret("sk-canary-first")
        server = serve(files)
        assert server.get("/openai").body.decode() == TEXT
        assert "OPENAI_API_KEY" not in server.get("/raw").json()
        secret("sk-canary-second")
        last = until(lambda: newest(server, fake, "Bearer sk-canary-second"), "the new key")
        assert last.path == "/v1/chat/completions"
        assert not any("new snapshots" in line for line in server.lines)


def test_previews_call_with_the_key_of_previews(serve: Serve, tmp_path: Path) -> None:
    def lampyr(*arguments: str, given: str = "") -> str:
        command = [sys.executable, "-m", "lampyr", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path / "project0", input=given, text=True, check=True, capture_output=True
        )
        return done.stdout

    with Fake() as fake:

        def authorization(server: Server, **headers: str) -> str:
            assert server.get("/openai", **headers).body.decode() == TEXT
            return fake.sent[-1].headers["authorization"].removeprefix("Bearer ")

        files = {"app/openai/route.py": BLOCKING, "lampyr.toml": settings(fake, 'fallback = ["second"]\n')}
        second = f'[providers.second]\nbase_url = "{fake.url}/v1"\nsecret = "OPENAI_API_KEY"\n'
        write(tmp_path / "project0", {**files, "lampyr.toml": files["lampyr.toml"] + second})
        lampyr("secrets", "set", "OPENAI_API_KEY", given="sk-canary-all")
        server = serve({})
        write(server.root, {"app/new/route.py": BLOCKING})
        preview = json.loads(lampyr("deploy", "--preview", "--json"))["url"].removeprefix("http://")
        assert authorization(server, Host=preview) == authorization(server) == "sk-canary-all"
        before = server.find("lampyr.vault").pid
        lampyr("secrets", "set", "OPENAI_API_KEY", "--env", "preview", given="sk-canary-previews")
        until(lambda: authorization(server, Host=preview) == "sk-canary-previews", "the key of previews")
        assert authorization(server) == "sk-canary-all"
        assert server.get("/new", Host=preview).body.decode() == TEXT and server.get("/new").status == 404
        server.find("lampyr.broker").kill()
        until(lambda: server.get("/openai", Host=preview).status == 200, "the next broker")
        assert authorization(server, Host=preview) == "sk-canary-previews" and authorization(server) == "sk-canary-all"
        fake.statuses += [500] * 3
        assert authorization(server, Host=preview) == "sk-canary-previews"  # of whom is asked in its place too
        lampyr("promote", preview.partition(".")[0])
        assert authorization(server) == "sk-canary-all" and server.get("/new").body.decode() == TEXT
        assert server.find("lampyr.vault").pid == before


def newest(server: Server, fake: Fake, authorization: str) -> Sent | None:
    """The request that a call makes now, if it has this key."""
    assert server.get("/openai").body.decode() == TEXT
    return fake.sent[-1] if fake.sent[-1].headers["authorization"] == authorization else None


def test_models_that_are_not_listed_are_refused(serve: Serve) -> None:
    with Fake() as fake:
        server = serve({**FILES, "lampyr.toml": settings(fake, 'models = ["small"]\n')})
        assert server.get("/openai").body.decode() == TEXT
        assert server.get("/openai?model=large").status == 500
        assert [one.json()["model"] for one in fake.sent] == ["small"]


def test_a_new_key_a_new_function_and_what_dies(serve: Serve) -> None:
    with Fake() as fake:
        server = serve({**FILES, "lampyr.toml": settings(fake)}, command="dev")
        assert server.get("/openai").body.decode() == TEXT
        server.write(".env.local", "OPENAI_API_KEY=sk-canary-second\nANTHROPIC_API_KEY=sk-ant-second\n")
        server.write("app/later/route.py", FILES["app/openai/route.py"])
        for route in ("/openai", "/later"):
            assert server.get(route).body.decode() == TEXT
            assert fake.sent[-1].headers["authorization"] == "Bearer sk-canary-second"
        for module in ("lampyr.broker", "lampyr.gateway", "lampyr.control"):
            old = server.find(module)
            old.kill()
            until(lambda module=module, old=old: server.find(module).pid != old.pid, f"another {module}")
            assert server.get("/later").body.decode() == TEXT, module
            assert fake.sent[-1].headers["authorization"] == "Bearer sk-canary-second"


def test_a_provider_without_a_key_is_a_warning_and_says_so(serve: Serve) -> None:
    with Fake() as fake:
        server = serve({"app/raw/route.py": FILES["app/raw/route.py"], "lampyr.toml": settings(fake)})
        server.log(r"\[providers\.openai\] has no key: there is no OPENAI_API_KEY")
        answer = raw(server, "/openai/chat/completions", body=CHAT)
        assert answer["status"] == 401
        assert "lampyr secrets set OPENAI_API_KEY" in answer["body"]


def test_many_streams_at_once(server: Server) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(server.get("/stream").body.decode())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TEXT] * 20

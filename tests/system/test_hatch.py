"""`network = "broker"`: a function reaches its providers, and nothing else at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from provider import WORDS, Fake
from serving import Serve, Server, until, write

TEXT = "".join(WORDS)
SDK = """
network = "broker"
from openai import OpenAI
client = OpenAI()
def GET(req):
    done = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}])
    return done.choices[0].message.content
"""
PLAIN = """
network = "broker"
import http.client, json, os, socket, urllib.request
from urllib.parse import urlsplit

def attempt(do, *arguments):
    try:
        return f"got {do(*arguments)}"
    except (OSError, ValueError) as error:
        return f"refused {type(error).__name__}"

def connect(host, port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect((host, port))
        if kind == socket.SOCK_DGRAM:
            sock.send(b"x")

def POST(req, ctx):
    return asked

async def POST(req):
    asked = await req.json()
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    ports = [*asked["ports"], url.port + 1]
    hosts = ["127.0.0.1", *asked["hosts"]]
    found = {f"{host}:{port}": attempt(connect, host, port) for host in hosts for port in ports}
    found["::1"] = attempt(connect, "::1", asked["ports"][0], socket.AF_INET6)
    found["udp"] = attempt(connect, asked["hosts"][0], 53, socket.AF_INET, socket.SOCK_DGRAM)
    found["name"] = attempt(socket.getaddrinfo, "example.com", 443)
    found["abstract"] = attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + asked["abstract"]))
    found["interfaces"] = [name for _, name in socket.if_nameindex()]
    return found

def PUT(req):
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    token = req.query.get("token") or os.environ["OPENAI_API_KEY"]
    connection = http.client.HTTPConnection(url.netloc, timeout=9)
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hello"}]})
    connection.request("POST", "/openai/chat/completions", body, {"authorization": "Bearer " + token})
    return {"status": connection.getresponse().status, "token": os.environ["OPENAI_API_KEY"]}
"""
PLAIN = PLAIN.replace("def POST(req, ctx):\n    return asked\n\n", "")


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with Fake() as provider:
        yield provider


def files(fake: Fake) -> dict[str, str]:
    return {
        "app/sdk/route.py": SDK,
        "app/second/route.py": SDK,  # so that both are forked from a shared snapshot
        "app/plain/route.py": PLAIN,
        "app/open/route.py": PLAIN.replace('network = "broker"\n', ""),
        "lampyr.toml": f'[functions]\nrate_limit = "none"\n[providers.openai]\nbase_url = "{fake.url}/v1"\n',
        ".env.local": "OPENAI_API_KEY=sk-canary-hatch-90ab12\n",
    }


@pytest.fixture(scope="module")
def server(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("hatch") / "project"
    write(root, files(fake))
    server = Server(root, "start")
    if any("broker only" in line for line in server.lines):
        server.stop()
        pytest.skip("there are no network namespaces here, and the log says so")
    yield server
    server.stop()


def test_the_stock_sdk_reaches_the_provider(server: Server) -> None:
    for route in ("/sdk", "/second", "/sdk"):
        answer = server.get(route)
        assert (answer.status, answer.body.decode()) == (200, TEXT), "\n".join(server.lines)
    server.log(r"^broker \| /second openai small 200 tokens 7 in, 3 out")


def addresses() -> list[str]:
    """Of this machine, on whatever network it is."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [sock.getsockname()[0]]


def test_nothing_but_the_broker_is_there(server: Server, fake: Fake) -> None:
    port = int(fake.url.rpartition(":")[2])
    with closing(socket.socket(socket.AF_UNIX)) as abstract:
        abstract.bind("\0lampyr-hatch-test")
        abstract.listen()
        asked = {"ports": [server.port, port], "hosts": [*addresses(), "192.0.2.1"], "abstract": "lampyr-hatch-test"}
        found = server.request("POST", "/plain", json.dumps(asked)).json()
        free = server.request("POST", "/open", json.dumps(asked)).json()
    assert found.pop("interfaces") == ["lo"]
    assert all(said.startswith("refused") for said in found.values()), found
    # What the same attempts come to with a network: they can fail.
    assert free[f"127.0.0.1:{server.port}"] == free[f"127.0.0.1:{port}"] == "got None"


def test_a_placeholder_of_another_function_opens_nothing(server: Server) -> None:
    own = server.request("PUT", "/plain").json()
    other = server.request("PUT", "/open").json()
    assert own["status"] == other["status"] == 200
    assert server.request("PUT", f"/plain?token={other['token']}").json()["status"] == 401
    assert server.request("PUT", f"/open?token={own['token']}").json()["status"] == 401


def test_it_goes_on_whatever_dies(serve: Serve, fake: Fake) -> None:
    server = serve(files(fake))
    assert server.request("PUT", "/plain").json()["status"] == 200
    for module in ("lampyr.broker", "lampyr.control", "lampyr.broker", "lampyr.gateway", "lampyr.broker"):
        old = server.find(module)
        old.kill()
        until(lambda module=module, old=old: server.find(module).pid != old.pid, f"another {module}")
        for route, method in (("/sdk", "GET"), ("/plain", "PUT")):
            assert server.request(method, route).status == 200, module


def test_rooms_that_are_gone_leave_no_socket_behind(serve: Serve, fake: Fake, tmp_path: Path) -> None:
    server = serve(files(fake), command="dev")
    assert server.get("/sdk").status == 200
    before = listening(server)
    for number in range(5):
        server.write("app/sdk/route.py", SDK + f"# {number}\n")
        assert server.get("/sdk").status == 200
    until(lambda: listening(server) <= before, "the broker to let go of the rooms")


def listening(server: Server) -> int:
    """How many descriptors the broker and control hold."""
    return sum(server.find(f"lampyr.{name}").num_fds() for name in ("broker", "control"))


def test_many_at_once(server: Server) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(server.get("/sdk").status)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 20

"""Fresh secrets through every door that a function, a client or a person has: afterwards they are nowhere.

One server, five values of different origin, functions that give away all they have in every way; then every file, log,
answer, page and process is searched for them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets as random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import psutil
import pytest
from provider import Fake
from serving import Server, write

SINKS = """
import base64, json, logging, os, sys
from urllib.parse import quote
from lampyr import Response, after, redirect

ALL = [os.environ[name] for name in sorted(os.environ) if name.startswith("CANARY_")]

def written(value):
    raw = value.encode()
    yield from (value, base64.b64encode(raw).decode(), base64.urlsafe_b64encode(b"x" + raw).decode(), raw.hex())
    yield from (quote(value, safe=""), quote(quote(value, safe=""), safe=""), json.dumps(value), repr(raw))
    yield "".join(f"&#{ord(char)};" for char in value)

def everything():
    return [one for value in ALL for one in written(value)]

def GET(req):
    how = req.query.get("how")
    if how == "count":
        return str(len(ALL))
    if how == "log":
        print(*everything(), sep="\\n")
        print(*everything(), file=sys.stderr)
        logging.getLogger("canary").warning("%s", everything())
        os.write(1, "".join(everything()).encode() + b"\\n")
        after(print, "afterwards", *ALL)
        return "logged"
    if how == "raise":
        raise ValueError(everything())
    if how == "exit":
        sys.exit(" ".join(everything()))
    if how == "crash":
        os.write(2, "\\n".join(everything()).encode())
        os.abort()
    if how == "header":
        return Response("x", headers={f"x-{number}": one for number, one in enumerate(everything()[:60])})
    if how == "redirect":
        redirect("https://elsewhere.example/?" + "&".join(everything()[:20]))
    if how == "cookie":
        answer = Response("x")
        for number, value in enumerate(ALL):
            answer.cookies.set(f"c{number}", base64.b64encode(value.encode()).decode())
        return answer
    if how == "stream":
        return Response(letter for letter in "\\n".join(everything()))
    if how == "error-body":
        return Response.json({"error": everything()}, status=500)
    return {"all": everything()}
"""

FILES = {
    "app/sinks/route.py": SINKS,
    "app/edge/route.py": 'runtime = "edge"\n' + SINKS,
    "app/late/route.py": "max_duration = 1\nimport time\n" + SINKS.replace("def GET(req):", "def GET(req):\n    "
        "secret = ALL[0]; time.sleep(5)", 1),
    "app/other/route.py": "import os\nsecrets = []\ndef GET(): return sorted(os.environ.items())\n",
    "app/provider/route.py": """
        from openai import OpenAI
        client = OpenAI(max_retries=0)
        def GET(req):
            asked = [{"role": "user", "content": "Hello"}]
            try:
                done = client.chat.completions.create(model=req.query["model"], messages=asked)
                return done.model_dump()
            except Exception as error:
                print(error)
                raise
    """,
    "public/page.html": "<script src=/_lampyr/env.js></script>\n",
}  # fmt: skip
HOWS = ("log", "raise", "exit", "crash", "header", "redirect", "cookie", "stream", "error-body", "body")


@dataclass
class House:
    """A server that has been used, and all that came out of it: what → bytes."""

    server: Server
    values: dict[str, str]
    sent: bytes = b""
    shown: dict[str, bytes] = field(default_factory=dict)

    def forms(self) -> Iterator[tuple[str, bytes]]:
        for name, value in self.values.items():
            raw = value.encode()
            for text in (raw, base64.b64encode(raw)[:-2], raw.hex().encode(), quote(value, safe="").encode()):
                yield name, text


def lampyr(*arguments: str, given: str = "", env: dict[str, str] | None = None) -> bytes:
    command = [sys.executable, "-m", "lampyr", *arguments]
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environ, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("canary") / "project"
    values = {name: f"canary:{name}/{random.token_urlsafe(12)}" for name in ("vault", "only", "file", "process", "key")}
    master = {"LAMPYR_MASTER_KEY": "master/" + random.token_urlsafe(16)}
    with Fake() as fake:
        provider = f'[providers.openai]\nbase_url = "{fake.url}/v1"\nsecret = "OPENAI_API_KEY"\n'
        write(root, {**FILES, "lampyr.toml": provider, ".env.local": f"CANARY_FILE={values['file']}\n"})
        for name, value, more in (
            ("CANARY_VAULT", values["vault"], ()),
            ("CANARY_ONLY", values["only"], ("--only", "/sinks")),
            ("OPENAI_API_KEY", values["key"], ()),
        ):
            lampyr("secrets", "set", name, str(root), *more, given=value, env=master)
        server = Server(root, "start", env={**master, "CANARY_TOKEN": values["process"]})
        found = House(server, {**values, "master": master["LAMPYR_MASTER_KEY"]})
        assert (server.get("/sinks?how=count").json(), server.get("/edge?how=count").json()) == (4, 3)
        use(found)
        found.sent = b"\n".join(repr(one).encode() + one.body for one in fake.sent)
        look_at(found, root, master)
        yield found
        server.stop()


def use(house: House) -> None:
    """Ask for everything, in the URL too."""
    server, shown = house.server, house.shown
    paths = [f"/{route}?how={how}" for route in ("sinks", "edge") for how in HOWS]
    paths += ["/late", "/other", "/_lampyr/env.js", "/page.html", "/provider?model=echo-key", "/provider?model=small"]
    for name, value in house.values.items():
        if name == "master":
            continue  # nobody but the vault process knows it, to mask it where a client says it
        mixed = "".join(f"%{ord(char):02x}" if at % 3 == 0 else quote(char, safe="") for at, char in enumerate(value))
        paths += [f"/nowhere/{quote(value, safe='')}", f"/nowhere/{mixed}"]
        if name != "key":  # which no function is told
            paths.append(f"/sinks?how=body&{quote(value, safe='')}")
    for path in paths:
        answer = server.get(path)
        shown[f"the answer to {path[:30]}"] = repr(answer.headers).encode() + answer.body
    server.log(r"GET /late 504")


def look_at(house: House, root: Path, master: dict[str, str]) -> None:
    """Everything that people and programs are shown."""
    shown, server = house.shown, house.server
    for command in (["logs"], ["logs", "--json"], ["usage"], ["usage", "--json"], ["ps", "--json"]):
        shown[" ".join(command)] = lampyr(command[0], str(root), *command[1:])
    for act in ("list", "audit"):
        shown[f"secrets {act}"] = lampyr("secrets", act, str(root), "--json", env=master)
    home = lampyr("console", str(root)).decode().split()[0]
    token = (root / ".lampyr/console.token").read_text().strip()
    base = home.split("?")[0].split("#")[0].rstrip("/")
    base = "/".join(base.split("/")[:3])
    api = json.loads(page(base, "/api/openapi.json", token))
    plain = [path for path, acts in api["paths"].items() if "get" in acts and "{" not in path]
    for path in ("/", "/metrics", *(one for one in plain if "stream" not in one and "follow" not in one)):
        shown[f"console {path}"] = page(base, path, token)
    assert b"lampyr_" in shown["console /metrics"]
    shown["the log"] = "\n".join(server.lines).encode()


def page(base: str, path: str, token: str) -> bytes:
    request = urllib.request.Request(base + path, headers={"authorization": f"Bearer {token}"})
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=20) as answer:
        data: bytes = answer.read(4 * 1024 * 1024)
        return data
    return b""


def test_nothing_that_is_shown_has_it(house: House) -> None:
    shown = {what: data + unquote_to_bytes(data) for what, data in house.shown.items()}
    leaks = [(what, name) for what, data in shown.items() for name, text in house.forms() if text in data]
    assert not leaks
    assert house.shown["the log"].count(b"***") > 50  # it has passed there


def test_no_file_has_it(house: House) -> None:
    """Of the state directory and the project: but for .env.local, where a person has put one."""
    leaks: list[tuple[str, str]] = []
    names: set[str] = set()
    for path in house.server.root.rglob("*"):
        if path.is_file() and path.name != ".env.local":
            data = path.read_bytes()
            names.add(path.name)
            leaks += [(str(path), name) for name, text in house.forms() if text in data]
    assert not leaks
    assert {"secrets.vault", "audit.log", "door.key"} <= names and len(names) > 10


def test_no_command_line_or_environment_has_it(house: House) -> None:
    """But for what the server itself was started with, in the environment of its first process."""
    first = psutil.Process(house.server.process.pid)
    told = Path(f"/proc/{first.pid}/environ").read_bytes().replace(house.values["process"].encode(), b"")
    for one in (first, *first.children(recursive=True)):
        with suppress(psutil.Error, OSError):
            told += " ".join(one.cmdline()).encode()
            told += Path(f"/proc/{one.pid}/environ").read_bytes() if one.pid != first.pid else b""
    assert not [name for name, text in house.forms() if text in told]


def test_the_provider_gets_its_key_and_nothing_else(house: House) -> None:
    assert house.values["key"].encode() in house.sent
    assert not [name for name, text in house.forms() if name != "key" and text in house.sent]


def test_a_function_that_may_have_nothing_has_nothing(house: House) -> None:
    assert b"CANARY" not in house.shown["the answer to /other"] and b"PATH" in house.shown["the answer to /other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the memory of others")
def test_whose_memory_has_it(house: House) -> None:
    """The gateway has what it masks; the broker what it sends; a function what it may have."""
    from memory import holds

    server = house.server
    ours = {name: server.find(f"lampyr.{name}").pid for name in ("vault", "gateway", "broker", "control", "console")}
    ours |= {"base": server.find("lampyr.runtime.snapshot").pid, "supervisor": server.process.pid}
    held = {name: {who for who, pid in ours.items() if holds(pid, value)} for name, value in house.values.items()}
    injected = {"vault", "gateway"}
    assert held["master"] <= {"vault"}
    assert held["key"] <= injected | {"broker"}
    assert held["process"] - {"supervisor"} <= injected  # which was started with it
    assert held["vault"] <= injected and held["only"] <= injected and held["file"] <= injected
    functions = psutil.Process(ours["base"]).children(recursive=True)
    assert not [one.pid for one in functions if holds(one.pid, house.values["key"])]


def test_the_functions_did_have_it(house: House) -> None:
    """Or there would have been nothing to find."""
    assert house.shown["the answer to /sinks?how=body"].count(b"***") == 4 * 9
    assert house.server.get("/edge?how=count").json() == 3

"""The vault in a running server: who gets which secret, and what happens when one changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
from memory import holds
from serving import Serve, Server, until, write

CANARY = "sk-canary-0f1e2d3c4b5a"
FILED = "a-secret-of-a-file-77e1"
SHOW = """
import hashlib, os

SEEN = os.environ.get("API_KEY", "")  # as a client that is made at import

def GET():
    now = os.environ.get("API_KEY", "")
    return [hashlib.sha256(one.encode()).hexdigest()[:8] if one else "" for one in (SEEN, now)]
"""


def secrets(root: Path, *arguments: str, given: str = "", env: dict[str, str] | None = None) -> str:
    return asked(root, *arguments, given=given, env=env).stdout


def asked(
    root: Path, *arguments: str, given: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lampyr", "secrets", arguments[0], *arguments[1:]]
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, cwd=root, input=given, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def seen(value: str) -> list[str]:
    import hashlib

    return [hashlib.sha256(value.encode()).hexdigest()[:8]] * 2 if value else ["", ""]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "kept"
    stream = """
        import asyncio, hashlib, os
        runtime = "edge"
        async def GET():
            for number in range(1000):
                yield hashlib.sha256(os.environ["API_KEY"].encode()).hexdigest()[:8] + "\\n"
                await asyncio.sleep(0.02)
    """
    files = {
        "app/mine/route.py": SHOW,
        "app/other/route.py": SHOW,
        "app/none/route.py": f"secrets = []\n{SHOW}",
        "app/stream/route.py": stream,
        "app/leak/route.py": "import os\ndef GET(): return 'key: ' + os.environ['API_KEY']\n",
        "app/environ/route.py": "def GET(): return open('/proc/self/environ').read()\n",
        "app/names/route.py": "import os\ndef GET(): return sorted(os.environ)\n",
    }
    write(root, files)
    return root


@pytest.fixture
def start(project: Path) -> Iterator[Serve]:
    """`start(command="start", env={})` → a Server on the project that ends with the test."""
    servers: list[Server] = []

    def begin(command: str = "start", env: dict[str, str] | None = None) -> Server:
        servers.append(Server(project, command, env=env))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.mark.parametrize(("command", "environment"), [("dev", "development"), ("start", "production")])
def test_the_vault_wins_and_says_so(project: Path, start: Serve, command: str, environment: str) -> None:
    secrets(project, "set", "API_KEY", given="of-all-of-them")
    secrets(project, "set", "API_KEY", "--env", environment, given=CANARY)
    write(project, {".env.local": "API_KEY=of-the-file\n"})
    server = start(command=command, env={"API_KEY": "of-the-process"})
    assert server.get("/mine").json() == seen(CANARY)
    server.log(r"warning: \.env\.local:1: API_KEY is in the vault too, and the vault wins")
    server.log(r"warning: process environment: API_KEY is in the vault too")


def test_previews_have_values_of_their_own(project: Path, start: Serve) -> None:
    said = "print(os.environ['API_KEY'], flush=True)\n    return os.environ['LAMPYR_ENV']\n"
    files = {"app/said/route.py": f"import os\ndef GET():\n    {said}", ".env.local": "API_KEY=of-the-file\n"}
    write(project, files)
    secrets(project, "set", "API_KEY", given="canary-of-production")
    secrets(project, "set", "API_KEY", "--env", "preview", given="canary-of-previews")
    server = start()
    write(project, {"app/new/route.py": SHOW})
    preview = deployed(project, "--preview")["url"].removeprefix("http://")
    assert server.get("/mine", Host=preview).json() == server.get("/new", Host=preview).json()
    assert server.get("/new", Host=preview).json() == seen("canary-of-previews")
    assert server.get("/mine").json() == seen("canary-of-production")
    assert server.get("/said", Host=preview).body == server.get("/said").body == b"production"
    secrets(project, "set", "API_KEY", "--env", "preview", given="canary-of-previews-2")
    until(lambda: server.get("/mine", Host=preview).json() == seen("canary-of-previews-2"), "the new value")
    assert server.get("/said", Host=preview).status == server.get("/said").status == 200
    secrets(project, "remove", "API_KEY", "--env", "preview")
    until(lambda: server.get("/mine", Host=preview).json() == seen("of-the-file"), "the next in order")
    with under_load(server, "/mine"):
        deployed(project, command="promote", id=preview.partition(".")[0])
        assert server.get("/new").json() == seen("canary-of-production")
    read = [one for one in json.loads(secrets(project, "audit", "--json")) if one["action"] == "read"]
    assert {tuple(one["environments"]) for one in read} == {("production",), ("preview",)}
    server.log(r"/said [0-9a-f]+ \| \*\*\*\n(.*\n)*.*/said [0-9a-f]+ \| \*\*\*")
    assert "canary" not in "\n".join(server.lines)
    assert not any(b"canary" in log.read_bytes() for log in (project / ".lampyr/logs").rglob("*") if log.is_file())


def deployed(project: Path, *options: str, command: str = "deploy", id: str = "") -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lampyr", command, *([id] if id else []), str(project), "--json", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told


def test_who_may_have_it(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", "--only", "/mine", "--only", "/none", given=CANARY)
    server = start()
    assert server.get("/mine").json() == seen(CANARY)
    assert server.get("/other").json() == server.get("/none").json() == seen("")
    read = [one for one in json.loads(secrets(project, "audit", "--json")) if one["action"] == "read"]
    assert ("API_KEY", ["/mine"], True) in [(one["name"], one.get("functions"), one["allowed"]) for one in read]
    assert not any(one.get("functions") in (["/other"], ["/none"]) for one in read)
    assert "none changed" in secrets(project, "audit", "--verify")


def test_asking_for_what_is_for_others_is_in_the_trail(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", "--only", "/mine", given=CANARY)
    write(project, {"app/other/route.py": f'secrets = ["API_KEY"]\n{SHOW}'})
    assert start().get("/other").json() == seen("")
    refused = [one for one in json.loads(secrets(project, "audit", "--json")) if not one["allowed"]]
    assert [(one["name"], one["functions"]) for one in refused] == [("API_KEY", ["/other"])]


def test_it_is_masked(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    assert start().get("/leak").body == b"key: ***"


def test_no_process_was_started_with_it(project: Path, start: Serve) -> None:
    """Neither a value nor the master key is in any command line or in an environment that /proc shows."""
    key = "5a" * 32
    secrets(project, "set", "API_KEY", given=CANARY, env={"LAMPYR_MASTER_KEY": key})
    server = start(env={"LAMPYR_MASTER_KEY": key})
    assert server.get("/mine").json() == seen(CANARY)
    assert "LAMPYR_MASTER_KEY" not in server.get("/names").json()
    told = server.get("/environ").body.decode()
    for process in server.processes():
        try:
            told += " ".join(process.cmdline()) + Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
        except (psutil.Error, OSError):
            continue
    assert "PATH=" in told and CANARY not in told and key not in told


def test_who_holds_it(project: Path, start: Serve) -> None:
    """The vault process, the gateway, which masks it, and the function's own processes; nobody else's memory."""
    if os.geteuid() != 0:
        pytest.skip("only root reads the memory of others")
    secrets(project, "set", "API_KEY", "--only", "/mine", given=CANARY)
    write(project, {".env.local": f"SESSION_SECRET={FILED}\n", "app/none/route.py": "secrets = []\n" + SHOW})
    server = start()
    assert server.get("/mine").json() == seen(CANARY)
    assert server.get("/other").json() == server.get("/none").json() == seen("")
    ours = {name: server.find(f"lampyr.{name}") for name in ("vault", "gateway", "control", "runtime.snapshot")}
    functions = {one.pid for one in ours["runtime.snapshot"].children(recursive=True)}
    assert {name for name, one in ours.items() if holds(one.pid, CANARY)} == {"vault", "gateway"}
    assert {name for name, one in ours.items() if holds(one.pid, FILED)} == {"vault", "gateway"}
    assert not holds(server.process.pid, CANARY) and not holds(server.process.pid, FILED)
    assert {pid for pid in functions if holds(pid, CANARY)} == family(server, "/mine")
    assert {pid for pid in functions if holds(pid, FILED)} & family(server, "/none") == set()


def family(server: Server, route: str) -> set[int]:
    """The processes of a function: its instances and their snapshot."""
    rows = json.loads(ps(server))["functions"]
    instances = {one["pid"] for row in rows if row["function"] == route for one in row["instances"]}
    assert instances
    return instances | {psutil.Process(pid).ppid() for pid in instances}


def ps(server: Server) -> str:
    command = [sys.executable, "-m", "lampyr", "ps", str(server.root), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


# Named, because pytest puts the id of a test into its environment.
@pytest.mark.parametrize("given", ["5a" * 31 + "7c", "a passphrase of some length"], ids=["key", "passphrase"])
def test_the_key_that_is_given_is_in_the_vault_process_only(project: Path, start: Serve, given: str) -> None:
    """Not in the memory of its parent either, nor in /proc/PID/environ; a vault process that comes later has it too."""
    env = {"LAMPYR_MASTER_KEY": given}
    secrets(project, "set", "API_KEY", given=CANARY, env=env)
    server = start(env=env)
    assert server.get("/mine").json() == seen(CANARY)
    first = server.find("lampyr.vault")
    first.send_signal(signal.SIGKILL)
    until(lambda: server.find("lampyr.vault").pid != first.pid, "another vault process")
    secrets(project, "set", "API_KEY", given="another-value", env=env)
    until(lambda: server.get("/mine").json() == seen("another-value"), "the new value")
    everybody = [psutil.Process(server.process.pid), *server.processes()]
    for one in everybody:
        with suppress(OSError):  # it has just ended
            assert given.encode() not in Path(f"/proc/{one.pid}/environ").read_bytes(), one
    if os.geteuid() == 0:
        vault = server.find("lampyr.vault").pid
        assert {one.pid for one in everybody if holds(one.pid, given)} <= {vault}
        if "passphrase" not in given:
            assert {one.pid for one in everybody if holds(one.pid, bytes.fromhex(given))} == {vault}


@pytest.mark.parametrize("command", ["dev", "start"])
def test_a_new_value_is_seen_without_a_failed_request(project: Path, start: Serve, command: str) -> None:
    secrets(project, "set", "API_KEY", given="the-first-value")
    server = start(command=command)
    assert server.get("/mine").json() == seen("the-first-value")
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        renew(project, server, stream)
    assert server.log("lampyr: /environ: it has new secrets")
    secrets(project, "set", "API_KEY", "--only", "/mine", given="for-mine-alone")
    until(lambda: server.get("/other").json() == seen(""), "that it is taken away")


@pytest.mark.parametrize("command", ["dev", "start"])
def test_set_says_when_a_server_has_the_value(project: Path, start: Serve, command: str) -> None:
    def told(value: str, *environments: str) -> str:
        options = [option for one in environments for option in ("--env", one)]
        return asked(project, "set", "API_KEY", *options, given=value).stderr.splitlines()[-1]

    own, other = ("development", "production") if command == "dev" else ("production", "development")
    assert told("before-the-start") == "no server is running: the next start has it"
    server = start(command=command)
    assert server.get("/mine").json() == seen("before-the-start")
    assert told("of-another-one", other) == f"the running server does not use it: its environment is {own}"
    previews = told("of-previews", "preview")
    assert ("its previews" if command == "start" else "does not use it") in previews
    assert server.get("/mine").json() == seen("before-the-start")
    assert told("while-it-runs").startswith("the running server imports its functions with it now")
    until(lambda: server.get("/mine").json() == seen("while-it-runs"), "the new value")


def renew(project: Path, server: Server, stream: BinaryIO) -> None:
    """Give API_KEY one value after another, and the vault another master key, while requests come and a stream runs."""
    until(lambda: seen("the-first-value")[0].encode() in stream.readline(), "the stream")
    statuses: set[int] = set()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            statuses.add(server.get("/mine").status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for value in ("the-second-value", "the-third-value"):
            secrets(project, "set", "API_KEY", given=value)
            until(lambda value=value: server.get("/mine").json() == seen(value), "the new value")
        secrets(project, "rotate")
        secrets(project, "set", "API_KEY", given="after-the-rotation")
        until(lambda: server.get("/mine").json() == seen("after-the-rotation"), "the value after the rotation")
    finally:
        done.set()
        asking.join()
    assert statuses == {200}, [line for line in server.lines if " 200 " not in line]
    for _ in range(20):
        line = stream.readline()
        assert line.strip() in (b"", b"9") or seen("the-first-value")[0].encode() in line


@contextmanager
def under_load(server: Server, *paths: str) -> Iterator[None]:
    """Requests all the time, none of which may fail."""
    answers: list[int] = []
    done = threading.Event()

    def ask(path: str) -> None:
        while not done.is_set():
            answers.append(server.get(path).status)
            time.sleep(0.005)  # the commands need a core too

    asking = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for one in asking:
        one.start()
    try:
        yield
    finally:
        done.set()
        for one in asking:
            one.join()
    assert set(answers) == {200}, [line for line in server.lines if " 200 " not in line]


def test_new_master_keys_while_the_server_runs(project: Path, start: Serve) -> None:
    """From a file to a passphrase, back to a file, and to a key: no request fails, and the server needs no restart."""
    secrets(project, "set", "API_KEY", given="value-number-0")
    server = start()
    phrase, key = "correct horse battery", "7c" * 32
    steps = [
        ("--passphrase", phrase),
        ("--stdin", key),
        ("--key-file", ""),
        ("--key-file", ""),
        ("--passphrase", phrase),
    ]
    env: dict[str, str] = {}
    with under_load(server, "/mine", "/mine", "/other", "/none"):
        for number, (option, text) in enumerate(steps, 1):
            secrets(project, "rotate", option, given=text, env=env)
            env = {"LAMPYR_MASTER_KEY": text} if text else {}
            value = f"value-number-{number}"
            secrets(project, "set", "API_KEY", given=value, env=env)
            until(lambda value=value: server.get("/mine").json() == seen(value), "the new value")
        vault = server.find("lampyr.vault")
        vault.send_signal(signal.SIGKILL)
        until(lambda: server.find("lampyr.vault").pid != vault.pid, "another vault process")
        secrets(project, "set", "API_KEY", given="one-more-value", env=env)
        until(lambda: server.get("/mine").json() == seen("one-more-value"), "the new value")
    assert not [line for line in server.lines if "error" in line]


NEEDS = """
import os
KEY = os.environ["API_KEY"]
if KEY.startswith("broken"):
    raise ValueError("this key is not one: " + KEY)
def GET(): return [KEY[:6] == "broken", len(KEY)]
"""


@pytest.mark.parametrize("command", ["dev", "start"])
def test_a_value_that_breaks_the_import_does_not_serve(project: Path, start: Serve, command: str) -> None:
    write(project, {"app/needs/route.py": NEEDS, "app/gone/route.py": NEEDS})
    secrets(project, "set", "API_KEY", given="a-good-value")
    server = start(command=command)
    with under_load(server, "/needs", "/mine"):
        secrets(project, "set", "API_KEY", given="broken-it-is")
        until(lambda: server.get("/mine").json() == seen("broken-it-is"), "the new value elsewhere")
        server.log(r"error: /needs: it cannot be imported with its new secrets, and goes on with the old ones: .*:5: ")
        assert server.get("/needs").json() == [False, len("a-good-value")]
        write(project, {"app/mine/route.py": SHOW + "\n"})  # what else is deployed changes nothing about it
        until(lambda: server.get("/mine").json() == seen("broken-it-is"), "the other function")
        assert server.get("/needs").json() == [False, len("a-good-value")]
        secrets(project, "set", "API_KEY", given="a-better-value")
        until(lambda: server.get("/needs").json() == [False, len("a-better-value")], "the better value")
    assert not any("broken-it-is" in line for line in server.lines)


def test_what_is_removed_is_gone_at_once(project: Path, start: Serve) -> None:
    """Also where the function cannot be imported without it, and in no process's memory."""
    write(project, {"app/needs/route.py": NEEDS})
    secrets(project, "set", "API_KEY", given=CANARY)
    server = start()
    assert server.get("/needs").status == 200 and server.get("/mine").json() == seen(CANARY)
    secrets(project, "remove", "API_KEY")
    until(lambda: server.get("/mine").json() == seen("") and server.get("/needs").status == 500, "that it is gone")
    if os.geteuid() == 0:
        base = server.find("lampyr.runtime.snapshot")
        until(lambda: not any(holds(one.pid, CANARY) for one in base.children(recursive=True)), "that nobody has it")


def test_a_vault_that_is_made_while_the_server_runs(project: Path, start: Serve) -> None:
    server = start()
    assert server.get("/mine").json() == seen("")
    secrets(project, "set", "API_KEY", given=CANARY)
    until(lambda: server.get("/mine").json() == seen(CANARY), "the new value")
    secrets(project, "remove", "API_KEY")
    until(lambda: server.get("/mine").json() == seen(""), "that it is gone")


def test_another_vault_process_takes_over(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    server = start()
    vault = server.find("lampyr.vault")
    vault.send_signal(signal.SIGKILL)
    until(lambda: server.find("lampyr.vault").pid != vault.pid, "another vault process")
    secrets(project, "set", "API_KEY", given="another-value")
    until(lambda: server.get("/mine").json() == seen("another-value"), "the new value")


def test_a_vault_process_that_is_stopped_is_replaced(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    server = start()
    vault = server.find("lampyr.vault")
    with under_load(server, "/mine", "/other"):
        vault.send_signal(signal.SIGSTOP)
        secrets(project, "set", "API_KEY", given="another-value")
        until(lambda: server.find("lampyr.vault").pid != vault.pid, "another vault process")
        until(lambda: server.get("/mine").json() == seen("another-value"), "the new value")
    server.log("the vault process does not answer; another one takes its place")


def test_a_deploy_while_the_vault_process_is_stopped_ends(project: Path, start: Serve) -> None:
    server = start()
    server.find("lampyr.vault").send_signal(signal.SIGSTOP)
    write(project, {"app/mine/route.py": "def GET(): return 'deployed'\n"})
    command = [sys.executable, "-m", "lampyr", "deploy", str(project)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1 and "the vault process has just been restarted\nhint: ask again" in refused.stderr
    deployed(project)
    assert server.get("/mine").body == b"deployed"


def test_a_vault_that_is_spoiled_while_the_server_runs_changes_nothing(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    server = start()
    (project / ".lampyr/vault/secrets.vault").write_bytes(b"spoiled")
    server.log("error: the vault .* cannot be opened")
    assert server.get("/mine").json() == seen(CANARY)


@pytest.mark.parametrize("command", ["dev", "start", "build"])
def test_a_vault_that_was_changed_is_not_served_from(project: Path, command: str) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    vault = project / ".lampyr/vault/secrets.vault"
    vault.write_bytes(vault.read_bytes()[:-1])
    port = [] if command == "build" else ["--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "lampyr", command, str(project), *port],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 1 and len(errors) == 1 and "cannot be opened" in errors[0]


def test_a_passphrase_comes_from_the_environment(project: Path, start: Serve) -> None:
    env = {"LAMPYR_MASTER_KEY": "correct horse battery staple"}
    secrets(project, "set", "API_KEY", given=CANARY, env=env)
    assert start(env=env).get("/mine").json() == seen(CANARY)


def test_the_vault_is_not_for_tests(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    assert start(env={"LAMPYR_ENV": "test"}).get("/mine").json() == seen("")


def test_a_public_file_that_is_rewritten_is_looked_at_again(project: Path, start: Serve) -> None:
    secrets(project, "set", "API_KEY", given=CANARY)
    write(project, {"public/page.js": "// nothing\n"})
    server = start(command="dev")
    assert server.get("/page.js").body == b"// nothing\n"
    write(project, {"public/page.js": f"const key = '{CANARY}'\n"})
    server.log("error: public/page.js: the file holds the value of the secret API_KEY")

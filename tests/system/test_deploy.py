"""Deployments on a running server: made, switched to and gone back to under load, and what survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Serve, Server, until, write

SAYS = """
    rate_limit = "none"
    concurrency = 1
    def GET(): return "WORD"
"""
STREAMS = """
    import asyncio
    from lampyr import after
    runtime = "edge"
    async def GET():
        async def words():
            for _ in range(20):
                yield "WORD "
                await asyncio.sleep(0.1)
        after(work)
        return words()

    async def work():
        await asyncio.sleep(0.5)
        print("after WORD is done", flush=True)
"""


def project(word: str) -> dict[str, str]:
    return {
        "app/says/route.py": SAYS.replace("WORD", word),
        "app/streams/route.py": STREAMS.replace("WORD", word),
        "public/page.txt": word,
    }


def lampyr(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lampyr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def deploy(server: Server, *options: str) -> dict[str, Any]:
    done = lampyr("deploy", server.root, "--json", *options)
    assert done.returncode == 0, done.stderr + "\n".join(server.lines[-20:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def listed(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lampyr("deployments", server.root, "--json").stdout)
    return found


def active(server: Server) -> str:
    return str(next(one["id"] for one in listed(server) if one["active"]))


@contextmanager
def load(server: Server, clients: int = 4) -> Iterator[Counter[tuple[int, bytes]]]:
    """Requests without a pause, each on a new connection, until the block ends; how they were answered."""
    answers: Counter[tuple[int, bytes]] = Counter()
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            try:
                answer = server.get("/says")
                answers[answer.status, answer.body] += 1
            except OSError as error:
                answers[0, repr(error).encode()] += 1

    threads = [threading.Thread(target=call) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def test_a_deployment_takes_over_without_a_failed_request_and_streams_end_in_peace(serve: Serve) -> None:
    server = serve(project("one"))
    first = active(server)
    streamed: list[bytes] = []
    with load(server) as answers:
        stream = threading.Thread(target=lambda: streamed.append(server.get("/streams").body))
        stream.start()
        until(lambda: answers[200, b"one"] > 20, "requests to be answered")
        write(server.root, project("two"))
        assert server.get("/page.txt").body == b"one"  # a deployment does not change with the files
        made = deploy(server)
        assert set(made) >= {"id", "url", "active"} and made["active"] and made["id"] != first
        assert made["url"] == f"http://127.0.0.1:{server.port}"
        assert server.get("/says").body == b"two" and server.get("/page.txt").body == b"two"
        until(lambda: answers[200, b"two"] > 20, "requests to be answered by it")
    stream.join(30)
    assert set(answers) == {(200, b"one"), (200, b"two")}, answers
    assert streamed == [b"one " * 20]
    server.log(r"after one is done")
    until(
        lambda: {row["deployment"] for row in ps(server) if row["instances"]} <= {made["id"]},
        "nothing to run of the first one",
    )


def ps(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lampyr("ps", server.root, "--json").stdout)["functions"]
    return found


def test_rollback_takes_less_than_a_second_and_fails_no_request(serve: Serve) -> None:
    server = serve(project("one"))
    first = active(server)
    write(server.root, project("two"))
    second = deploy(server)["id"]
    with load(server) as answers:
        until(lambda: answers[200, b"two"] > 20, "requests to be answered")
        began = time.monotonic()
        done = lampyr("rollback", server.root, "--json")
        took_s = time.monotonic() - began
        assert json.loads(done.stdout)["id"] == first, done.stderr
        assert server.get("/says").body == b"one" and server.get("/page.txt").body == b"one"
        until(lambda: answers[200, b"one"] > 20, "requests to be answered by it")
        there = lampyr("rollback", second[:6], server.root, "--json")
        assert there.returncode == 0, there.stderr
        assert server.get("/says").body == b"two"
    assert took_s < 20, took_s  # a second on a machine at rest; the next test says what is not waited for
    assert set(answers) == {(200, b"one"), (200, b"two")}, answers
    assert [one["id"] for one in listed(server) if one["active"]] == [second]


IMPORTED_WHEN_IT_MAY = """
    import pathlib, time
    while not (pathlib.Path(__file__).parents[1] / "may").exists():
        time.sleep(0.01)
    def GET(): return "slow"
"""


def test_rollback_to_one_whose_imports_are_slow_is_as_quick(serve: Serve) -> None:
    server = serve({"app/says/route.py": IMPORTED_WHEN_IT_MAY, "app/may": ""})
    for word in ("one", "two"):  # of three, the first one does not stand by any more
        write(server.root, {"app/says/route.py": SAYS.replace("WORD", word)})
        deploy(server)
    first = listed(server)[-1]["id"]
    may = server.live.parent / first / "app/may"
    may.unlink()
    assert lampyr("rollback", first, server.root).returncode == 0
    may.touch()
    assert server.get("/says").body == b"slow"


BROKEN = {
    "syntax": ("def GET(:\n", 1, "syntax error"),
    "a setting": ("memory = 'much'\ndef GET(): ...\n", 1, "memory"),
    "import": ("\nimport no_such_module\ndef GET(): ...\n", 2, "no_such_module"),
    "hook": (
        "from lampyr import after_restore\n@after_restore\ndef broken(): raise KeyError(1)\ndef GET(): ...\n",
        None,
        "health fork",
    ),
    "lifespan": (
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n",
        None,
        "health fork",
    ),
    "at its end": ("import atexit, os\natexit.register(os._exit, 7)\ndef GET(): ...\n", None, "status 7"),
}


def test_a_broken_one_changes_nothing_and_says_where(serve: Serve) -> None:
    server = serve(project("one"))
    before = listed(server)
    with load(server, 2) as answers:
        for name, (text, line, says) in BROKEN.items():
            write(server.root, {**project("two"), "app/broken/route.py": text})
            done = lampyr("deploy", server.root, "--json")
            error = json.loads(done.stdout)["error"]
            assert done.returncode == 1 and error["code"] == "BUILD" and error["hint"], name
            [problem] = error["problems"]
            assert (problem["file"], problem["line"]) == ("app/broken/route.py", line), name
            assert says in problem["message"], (name, problem)
            where = f"app/broken/route.py:{line}" if line else "app/broken/route.py"
            assert f"lampyr: error: {where}: " in done.stderr, name
    assert set(answers) == {(200, b"one")}
    assert listed(server) == before and server.get("/broken").status == 404
    folders = {path.name for path in (server.root / ".lampyr/deployments").iterdir() if path.is_dir()}
    assert folders == {before[0]["id"]}


def test_a_preview_has_a_url_of_its_own_until_it_is_promoted(serve: Serve) -> None:
    server = serve(project("one"))
    first = active(server)
    write(server.root, project("two"))
    made = deploy(server, "--preview")
    assert not made["active"] and made["url"] == f"http://{made['id']}.localhost:{server.port}"
    host = made["url"].removeprefix("http://")
    assert server.get("/says", Host=host).body == b"two" and server.get("/page.txt", Host=host).body == b"two"
    assert server.get("/says").body == b"one" and server.get("/says", Host="elsewhere.test").body == b"one"
    assert {row["deployment"] for row in ps(server)} == {first, made["id"]}
    one = next(one for one in listed(server) if one["id"] == made["id"])
    assert one["preview"] and not one["active"] and one["url"] == made["url"]
    assert [one["id"] for one in listed(server) if one["active"]] == [first]
    refused = lampyr("rollback", made["id"], server.root)
    assert refused.returncode == 1 and "promote" in refused.stderr
    with load(server) as answers:
        until(lambda: answers[200, b"one"] > 10, "requests to be answered")
        done = lampyr("promote", made["id"], server.root, "--json")
        assert json.loads(done.stdout)["active"], done.stderr
        assert server.get("/says").body == b"two"
    assert set(answers) <= {(200, b"one"), (200, b"two")}, answers
    assert active(server) == made["id"] and not any(one["preview"] for one in listed(server))
    assert lampyr("promote", made["id"], server.root).returncode == 1
    assert lampyr("rollback", server.root).returncode == 0 and server.get("/says").body == b"one"
    for line in (f"{made['id']} is a preview", f"{made['id']} serves", f"{first} serves"):
        server.log(f"^lampyr: the deployment {line}$")


@pytest.mark.parametrize("module", ["lampyr.gateway", "lampyr.control"])
def test_previews_and_what_was_gone_back_to_outlive_our_own_processes(serve: Serve, module: str) -> None:
    server = serve(project("one"))
    write(server.root, project("two"))
    deploy(server)
    assert lampyr("rollback", server.root).returncode == 0
    write(server.root, project("three"))
    preview = deploy(server, "--preview")["url"].removeprefix("http://")
    victim = server.find(module)
    victim.kill()
    until(lambda: server.find(module).pid != victim.pid, "the replacement")
    until(lambda: _says(server) == b"one", "what was active")
    until(lambda: _says(server, Host=preview) == b"three", "the preview")
    until(lambda: lampyr("deployments", server.root).returncode == 0, "the door")
    write(server.root, project("four"))
    deploy(server)
    assert server.get("/says").body == b"four"


def _says(server: Server, **headers: str) -> bytes:
    try:
        return server.get("/says", **headers).body
    except OSError:
        return b""


def _restarted(server: Server) -> Server:
    return Server(server.root, "start")


def test_a_restart_serves_what_was_active_or_what_is_new(serve: Serve) -> None:
    server = serve(project("one"))
    first = active(server)
    write(server.root, project("two"))
    second = deploy(server)["id"]
    assert lampyr("rollback", server.root).returncode == 0
    server.stop()
    again = _restarted(server)  # the files are those of `two`, which was made and left
    try:
        assert again.get("/says").body == b"one" and active(again) == first
        again.log(f"serving the deployment {first}; the project's files are those of {second}")
    finally:
        again.stop()
    write(server.root, project("three"))
    third = _restarted(server)
    try:
        assert third.get("/says").body == b"three" and active(third) not in (first, second)
        assert lampyr("rollback", third.root).returncode == 0 and third.get("/says").body == b"one"
    finally:
        third.stop()


# Is being imported until there is a file that its line of the log names.
SLOW = """
    import pathlib, time
    may = pathlib.Path(__file__).with_name("may")
    print("importing until", may, flush=True)
    while not may.exists():
        time.sleep(0.01)
    def GET(): return "slow"
"""


def importing(server: Server) -> Path:
    return Path(server.log(r"\| importing until (.+)$")[1])


@pytest.mark.parametrize("victim", ["server", "lampyr.control", "lampyr.gateway"])
def test_a_kill_in_the_middle_of_a_deploy_leaves_what_served_or_the_new_one_whole(serve: Serve, victim: str) -> None:
    server = serve(project("one"))
    first = active(server)
    write(server.root, {**project("two"), "app/slow/route.py": SLOW})
    asked = subprocess.Popen(
        [sys.executable, "-m", "lampyr", "deploy", str(server.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    may = importing(server)
    if victim == "server":
        server.process.kill()
        server.process.wait(60)
        assert asked.wait(60) == 1
        asked.communicate()
        write(server.root, project("one"))
        (server.root / "app/slow/route.py").unlink()
        again = _restarted(server)
        try:
            assert again.get("/says").body == b"one" and active(again) == first
            folders = {path.name for path in (server.root / ".lampyr/deployments").iterdir() if path.is_dir()}
            assert folders == {first}  # nothing is left of the attempt
        finally:
            again.stop()
        return
    server.find(victim).kill()
    if victim == "lampyr.gateway":
        until(lambda: sum("| importing until" in line for line in server.lines) == 2, "the next attempt")
    may.touch()
    code = asked.wait(60)
    asked.communicate()
    # A new gateway is asked again; a new control knows nothing of who asked the one before.
    assert code == (0 if victim == "lampyr.gateway" else 1)
    wanted = b"two" if victim == "lampyr.gateway" else b"one"
    until(lambda: _says(server) == wanted, f"{wanted!r} to be served")
    if victim == "lampyr.control":
        until(lambda: lampyr("deployments", server.root).returncode == 0, "the door")
        assert active(server) == first


def test_two_at_once_are_one_too_many(serve: Serve) -> None:
    server = serve(project("one"))
    write(server.root, {**project("two"), "app/slow/route.py": SLOW})
    codes: list[int] = []
    one = threading.Thread(target=lambda: codes.append(lampyr("deploy", server.root).returncode))
    one.start()
    may = importing(server)
    other = lampyr("deploy", server.root)
    assert other.returncode == 1 and "is being made" in other.stderr
    assert server.get("/says").body == b"one"
    may.touch()
    one.join(60)
    assert codes == [0] and server.get("/says").body == b"two"


def test_the_same_files_are_the_same_deployment_and_new_variables_are_seen(serve: Serve) -> None:
    server = serve({".env": "WORD=one\n", "app/says/route.py": "import os\ndef GET(): return os.environ['WORD']\n"})
    first = active(server)
    assert server.get("/says").body == b"one"
    write(server.root, {".env": "WORD=two\n"})
    assert deploy(server)["id"] == first and len(listed(server)) == 1
    assert server.get("/says").body == b"two"
    assert not list((server.root / ".lampyr/deployments").rglob(".env*"))


def test_what_is_no_part_of_a_deployment_is_not_copied_and_nothing_can_be_written(serve: Serve) -> None:
    files = {
        **project("one"),
        ".git/config": "x",
        "app/__pycache__/x.pyc": "x",
        "cache/CACHEDIR.TAG": "x",
        "env/pyvenv.cfg": "x",
        "public/node_modules/page.js": "served",
        "data/words.txt": "read me",
        "app/reads/route.py": "def GET(): return open('data/words.txt').read()\n",
    }
    server = serve(files)
    names = {str(path.relative_to(server.live)) for path in server.live.rglob("*") if path.is_file()}
    assert names == {
        *(name for name in files if name.split("/")[0] in ("data", "public")),
        *(name for name in files if name.endswith("route.py")),
    }
    assert server.get("/reads").body == b"read me"
    assert server.get("/node_modules/page.js").body == b"served"
    assert not any(path.stat().st_mode & 0o222 for path in server.live.rglob("*") if path.is_file())


def test_files_that_did_not_change_are_on_the_disk_once_and_old_deployments_go(serve: Serve) -> None:
    server = serve(project("0"))
    write(server.root, {"data/large.txt": "x" * 100_000})
    for number in range(1, 13):
        write(server.root, project(str(number)))
        deploy(server)
    found = listed(server)
    assert len(found) == 10 and found[0]["active"]
    deploy(server)
    inodes = {path.stat().st_ino for path in (server.root / ".lampyr/deployments").glob("*/data/large.txt")}
    assert len(inodes) == 1
    assert len([path for path in (server.root / ".lampyr/deployments").iterdir() if path.is_dir()]) <= 11


def test_what_cannot_be_asked(serve: Serve, tmp_path: Path) -> None:
    server = serve(project("one"))
    refused: dict[str, Callable[[], subprocess.CompletedProcess[str]]] = {
        "no deployment to go back to": lambda: lampyr("rollback", server.root),
        "there is no deployment abc": lambda: lampyr("rollback", "abc", server.root),
        "is active already": lambda: lampyr("promote", active(server), server.root),
        "the server serves": lambda: lampyr("deploy", tmp_path, "--state-dir", server.root / ".lampyr"),
    }
    for says, ask in refused.items():
        done = ask()
        assert done.returncode == 1 and says in done.stderr and "hint: " in done.stderr, done.stderr
    dev = serve(project("one"), command="dev")
    assert "deploys at every save" in lampyr("deploy", dev.root).stderr
    server.stop(signal.SIGTERM)
    assert "no server runs" in lampyr("deployments", server.root).stderr


def test_a_preview_with_a_name_for_a_host(serve: Serve) -> None:
    server = serve(project("one"), "--host", "localhost")
    write(server.root, project("two"))
    made = deploy(server, "--preview")
    assert made["url"] == f"http://{made['id']}.localhost:{server.port}"
    table = lampyr("deployments", server.root).stdout
    assert "preview" in table and made["url"] in table and os.linesep in table

"""`lampyr logs`: what real functions write in every way there is, kept masked, found again, followed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import WITHIN_S, Serve, Server, running, until, write

from lampyr.logs import files, reading
from lampyr.logs.reading import Query

TOKEN = "s3cr3t/token+with=signs"
SAYS = """
    import base64, ctypes, logging, os, subprocess, sys, threading
    logging.basicConfig(level=logging.DEBUG, format="%(name)s:%(message)s")
    logging.getLogger("asyncio").setLevel("WARNING")
    log = logging.getLogger("mine")
    token = os.environ["MY_TOKEN"]
    libc = ctypes.CDLL(None)
    log.info("imported with %s", token)

    def POST():
        print("printed")
        print("to stderr", file=sys.stderr)
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("logged %s", level)
        try:
            {}["absent"]
        except KeyError:
            log.exception("caught")
        os.write(1, b"raw to 1\\n")
        os.write(2, b"raw to 2\\n")
        libc.puts(b"from C")
        libc.fflush(None)
        subprocess.run(["echo", "from a child"])
        threading.Thread(target=print, args=("from a thread",)).start()
        return "said"

    def PUT():
        print("whole", token)
        os.write(1, f"in two {token[:9]}".encode())
        os.write(1, f"{token[9:]}\\n".encode())
        for one in token:
            os.write(1, one.encode())
        os.write(1, b"\\n")
        print("x" * 16380 + token + "y" * 20000 + token)
        print(base64.encodebytes((b"%%" + token.encode()) * 9).decode())
        log.error("logged %r", token)
        libc.puts(token.encode())
        libc.fflush(None)
        raise ValueError(token)

    def DELETE():
        print("\\x1b[31mred\\x1b]0;title\\x07 \\u202eback\\x9b1m \\u2066 \\r\\x08 \\x00\\x7f\\u200b")
        print("\\ttab \\u2028 é 漢 👩\\u200d🚒")
        os.write(1, b"\\xff\\xfe bad utf-8\\n")
        os.write(1, b"\\x1e forged\\n\\x1eforged\\x1e id\\n\\x1e\\x1fe\\x1e forged level\\n")

    rate_limit = "none"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = {
        "app/says/route.py": SAYS,
        "app/edge/route.py": 'runtime = "edge"\n' + "".join(f"{one[4:]}\n" for one in SAYS.split("\n")),
        "app/other/route.py": "def GET(): print('other')\n",
        ".env.local": f"MY_TOKEN='{TOKEN}'\n",
    }
    with running(tmp_path_factory.mktemp("logs"), project) as server:
        yield server


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "lampyr", "logs", str(root), *arguments]


def logs(root: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that are kept; none where it says that there are none."""
    done = subprocess.run(command(root, "--json", *arguments), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "no line of" in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []


def of(server: Server, id: str) -> list[dict[str, Any]]:
    """The lines of an invocation, once its access line is there."""

    def complete() -> list[dict[str, Any]]:
        found = logs(server.root, "--id", id)
        return found if any(one["stream"] == "access" for one in found) else []

    found: list[dict[str, Any]] = until(complete, f"the lines of {id}", context=server.lines)
    return found


def said(lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["stream"], one["level"], one["message"]) for one in lines]


COMMON = [
    ("stdout", "info", "printed"),
    ("stderr", "info", "to stderr"),
    *[("stderr", level, f"mine:logged {level}") for level in ("debug", "info", "warning", "error", "critical")],
    ("stderr", "error", "mine:caught"),
    ("stderr", "error", "KeyError: 'absent'"),
]
UNMARKED = [
    ("stdout", "info", "raw to 1"),
    ("stderr", "info", "raw to 2"),
    ("stdout", "info", "from C"),
    ("stdout", "info", "from a child"),
    ("stdout", "info", "from a thread"),
]


@pytest.mark.parametrize("name", ["says", "edge"])
def test_every_way_to_write_is_a_line_with_its_level_and_its_id(server: Server, name: str) -> None:
    id = server.request("POST", f"/{name}").headers["x-lampyr-id"]
    lines = of(server, id)
    assert set(lines[0]) == {"time", "id", "function", "stream", "level", "message"}
    assert {(one["id"], one["function"]) for one in lines} == {(id, f"/{name}")}
    assert [one for one in COMMON if one not in said(lines)] == []
    which = ("--id", id) if name == "says" else ("--function", "/edge")
    until(lambda: set(UNMARKED) <= set(said(logs(server.root, *which))), "those of the child and the thread, too")
    access = [one["message"] for one in lines if one["stream"] == "access"]
    assert len(access) == 1 and re.fullmatch(rf"POST /{name} 200 [0-9.]+ ms( cold)?", access[0])
    assert [one["time"] for one in lines] == sorted(one["time"] for one in lines)


def test_with_many_requests_at_a_time_who_wrote_unmarked_lines_is_not_guessed(server: Server) -> None:
    server.request("POST", "/edge")
    lines = until(lambda: [one for one in logs(server.root, "--function", "/edge") if one["message"] == "from C"], "it")
    assert {one["id"] for one in lines} == {None}


@pytest.mark.parametrize("name", ["says", "edge"])
def test_no_secret_is_written_however_it_is_split(server: Server, name: str) -> None:
    id = server.request("PUT", f"/{name}?q=1").headers["x-lampyr-id"]
    server.get(f"/{name}/{TOKEN}")
    server.get("/nothing/s3cr3t%2Ftoken%2Bwith%3Dsigns")
    lines = of(server, id)
    text = "\n".join(one["message"] for one in lines)
    assert "whole ***" in text and "mine:logged '***'" in text and "ValueError: ***" in text
    until(lambda: any("/nothing" in one["message"] for one in logs(server.root)), "the access line")
    server.log("/nothing")
    kept = b"".join(file.read_bytes() for file in (server.root / ".lampyr/logs").rglob("*.jsonl"))
    for where in (kept, "\n".join(server.lines).encode()):
        assert b"s3cr3t" not in where and b"th=signs" not in where and b"/token" not in where
        assert b"czNjcjN0L3Rva2Vu" not in where  # base64
    long = [one["message"] for one in logs(server.root, "--function", f"/{name}") if "xxxx" in one["message"]]
    assert long and all(len(one) < 25_000 for one in long)


HARMFUL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("name", ["says", "edge"])
def test_nothing_a_function_writes_moves_a_terminal(server: Server, name: str) -> None:
    id = server.request("DELETE", f"/{name}").headers["x-lampyr-id"]
    lines = of(server, id)
    done = subprocess.run(command(server.root, "--function", f"/{name}"), capture_output=True, check=True)
    shown = done.stdout.decode()
    server.log(rf"DELETE /{name} .* {id}")
    for text in (*shown.split("\n"), *server.lines):
        assert not HARMFUL.search(text), ascii(text)
    assert r"\x1b[31mred\x1b]0;title\x07 \u202eback\x9b1m \u2066 \x0d\x08 \x00\x7f\u200b" in shown
    assert "\ttab \\u2028 é 漢 👩\u200d🚒" in shown
    raw = subprocess.run(command(server.root, "--json"), capture_output=True, check=True).stdout
    assert all(byte == 10 or 32 <= byte < 127 for byte in raw)
    assert any(one["message"].startswith("\x1b[31mred\x1b]0;title\x07 \u202eback") for one in lines)
    assert "forged" not in {one["id"] for one in logs(server.root)}


def test_a_person_at_a_terminal_gets_colours_and_nothing_else(server: Server) -> None:
    server.request("DELETE", "/says")
    for env, coloured in (({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"TERM": "xterm"}, True)):
        ours, theirs = pty.openpty()
        clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen(command(server.root, "-n", "40"), stdout=theirs, env={**clean, **env})
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert process.wait(60) == 0
        plain = re.sub(rb"\x1b\[[0-9;]*m", b"", shown)
        assert (plain != shown) is coloured
        assert b"\x1b" not in plain and b"\xe2\x80\xae" not in plain


def test_a_line_of_every_request_is_kept_those_too_that_no_function_served(server: Server) -> None:
    wanted = {
        server.get("/nowhere").headers["x-lampyr-id"]: (None, r"GET /nowhere 404 [0-9.]+ ms"),
        server.get("/says").headers["x-lampyr-id"]: ("/says", r"GET /says 405 [0-9.]+ ms"),
        server.get("/other").headers["x-lampyr-id"]: ("/other", r"GET /other 500 error [0-9.]+ ms( cold)?"),
    }
    for id, (function, message) in wanted.items():
        (line,) = [one for one in of(server, id) if one["stream"] == "access"]
        assert line["function"] == function and re.fullmatch(message, line["message"])
    failed = [one for one in of(server, list(wanted)[-1]) if one["stream"] == "platform"]
    assert len(failed) == 1 and failed[0]["level"] == "error" and "GET returned None" in failed[0]["message"]


def test_what_after_raises_is_an_error_also_where_the_answer_was_well(serve: Serve) -> None:
    calls = (
        "from lampyr import after\ndef GET():\n    after(lambda: 1 / 0)\n    after(print, 'later')\n    return 'x'\n"
    )
    server = serve({"app/x/route.py": calls})
    id = server.get("/x").headers["x-lampyr-id"]
    until(lambda: any(one["message"] == "later" for one in logs(server.root, "--id", id)), "what after prints")
    errors = logs(server.root, "--id", id, "--level", "warning")
    assert errors[-1]["message"] == "ZeroDivisionError: division by zero"
    assert {one["level"] for one in errors} == {"error"}


def test_level_since_and_number_choose(server: Server) -> None:
    id = server.request("POST", "/says").headers["x-lampyr-id"]
    of(server, id)
    assert {one["level"] for one in logs(server.root, "--id", id, "--level", "error")} == {"error", "critical"}
    assert len(logs(server.root, "-n", "3")) == 3
    assert logs(server.root, "-n", "3") == logs(server.root)[-3:]
    time.sleep(1.1)  # a second goes by
    assert logs(server.root, "--since", "1s") == []
    assert logs(server.root, "--since", "10m", "--id", id) == logs(server.root, "--id", id)


def test_the_beginning_of_an_id_is_enough_where_no_other_begins_so(server: Server) -> None:
    first, second = (server.get("/other").headers["x-lampyr-id"] for _ in range(2))
    of(server, first), of(server, second)
    at = next(at for at in range(24) if first[at] != second[at])
    shared, own = first[:at], first[: at + 1]
    assert len(own) < len(first) and logs(server.root, "--id", own) == logs(server.root, "--id", first)
    done = subprocess.run(command(server.root, "--id", shared), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"2 invocations begin with {shared}\nhint: give more of it: {first}, {second}\n" in done.stderr
    done = subprocess.run(command(server.root, "--id", first[:6]), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.endswith(", ...\n"), "more are counted than named"


def test_what_was_never_there_is_told_in_clear_words(server: Server, tmp_path: Path) -> None:
    def ask(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(command(server.root, *arguments), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, err = ask("--id", "0" * 24)
    assert (code, out) == (1, "") and f"no line of an invocation {'0' * 24} is kept\nhint: " in err
    code, out, err = ask("--id", "000000")
    assert (code, out) == (1, "") and "no line of an invocation 000000... is kept\nhint: " in err
    code, _, err = ask("--id", "00000")
    assert code == 2 and "'00000' is too short" in err
    code, _, err = ask("--function", "say")
    assert code == 1 and 'no line of a function say is kept\nhint: did you mean "/says"?' in err
    code, out, _ = ask("--function", "/absent", "--json")
    assert code == 1 and "no line of a function /absent" in json.loads(out)["error"]["message"]
    code, _, err = ask("--since", "yesterday")
    assert code == 2 and "'yesterday' is not a time ago, such as 90s" in err
    code, _, err = ask("--level", "bad")
    assert code == 2 and "'debug', 'info', 'warning', 'error', 'critical'" in err
    code, out, err = ask("--state-dir", str(tmp_path / "none"))
    assert (code, out, err) == (0, "", "lampyr: nothing has been logged yet\n")
    for option, value in (("--id", "0" * 24), ("--function", "/says")):
        code, out, err = ask("--state-dir", str(tmp_path / "none"), option, value)
        assert (code, out) == (1, "") and f"{value} is kept" in err


class Following:
    """`lampyr logs -f --json` and what it has printed so far."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command(root, "-f", "--json", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._text = b""

    def messages(self) -> list[str]:
        assert self.process.stdout is not None
        self._text += self.process.stdout.read() or b""
        *lines, _ = self._text.split(b"\n")
        return [json.loads(line)["message"] for line in lines]

    def wait(self, message: str, count: int = 1) -> None:
        until(
            lambda: self.messages().count(message) >= count, f"{message!r} {count} times", WITHIN_S, self._text[-2000:]
        )

    def interrupt(self) -> tuple[int, bytes]:
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


PRINTS = "def GET(req): print('said ' + req.query['n'])\n"


def test_follow_goes_on_when_the_server_is_killed_and_started_again_and_ends_quietly(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve({"app/x/route.py": PRINTS, "lampyr.toml": "[logs]\nsize = 1\n"})
    following = Following(server.root, "--function", "/x")
    server.get("/x?n=1")
    following.wait("said 1")
    server.find("lampyr.gateway").kill()
    until(lambda: server.get("/x?n=2").status == 500, "an answer from the new gateway")
    following.wait("said 2")
    server.process.kill()
    server.process.wait()
    until(lambda: not (server.root / ".lampyr/lock").exists() or server.process.poll() is not None, "its end")
    again = Server(server.root, "start")
    try:
        again.get("/x?n=3")
        following.wait("said 3")
        assert following.messages().count("said 1") == 1 and following.messages().count("said 3") == 1
        assert following.interrupt() == (130, b"")
        started = [one for one in logs(server.root) if one["message"].endswith("has started")]
        assert len(started) == 3 and {one["function"] for one in started} == {None}
    finally:
        again.stop()


def test_a_reader_that_leaves_ends_it_quietly_even_when_nothing_is_said(server: Server) -> None:
    for _ in range(5):  # more than fits into a pipe
        of(server, server.request("PUT", "/says").headers["x-lampyr-id"])
    for arguments in ([], ["-f"]):
        process = subprocess.Popen(command(server.root, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr is not None and process.stderr.read() == b""
        process.stderr.close()


FLOODS = """
    import os
    rate_limit = "none"
    def GET():
        print("before")
        line = b"f" * 99 + b"\\n"
        for _ in range(200_000):
            os.write(1, line * 10)
        print("after")
        return "done"
    max_duration = 60
"""


def test_a_flood_costs_its_own_function_lines_and_others_none(serve: Serve) -> None:
    server = serve({"app/flood/route.py": FLOODS, "app/x/route.py": PRINTS, "lampyr.toml": "[logs]\nsize = 2\n"})
    flooding = subprocess.Popen(
        ["curl", "-s", "-m", "15", f"http://127.0.0.1:{server.port}/flood"], stdout=subprocess.DEVNULL
    )
    for number in range(70):
        server.get(f"/x?n={number}")
        time.sleep(0.05)  # so that they come during all of the flood
    flooding.kill()
    flooding.wait()
    server.log(r"^GET /flood ")
    wanted = [f"said {number}" for number in range(70)]
    until(lambda: printed(server, "/x") == wanted, "all its lines")
    marks = [
        one for one in logs(server.root, "--function", "/flood", "--level", "warning") if "missing" in one["message"]
    ]
    assert marks and all(one["stream"] == "platform" for one in marks)
    server.log(r"lampyr: warning: /flood: \d+ lines missing here")
    flood = server.root / ".lampyr/logs" / files.folder_of("/flood")
    assert sum(entry.stat().st_size for entry in os.scandir(flood)) <= 2 << 20


def printed(server: Server, route: str) -> list[str]:
    return [one["message"] for one in logs(server.root, "--function", route) if one["stream"] == "stdout"]


def test_lines_survive_the_end_of_any_process(serve: Serve) -> None:
    server = serve({"app/x/route.py": PRINTS})
    root = server.root / ".lampyr/logs"
    for number, module in enumerate(["lampyr.control", "lampyr.vault", "lampyr.runtime.snapshot", "lampyr.gateway"]):
        until(lambda number=number: server.get(f"/x?n={number}").status == 500, "an answer")
        message = f"said {number}"
        until(lambda message=message: any(one.message == message for one in reading.read(root, Query())), message)
        server.find(module).kill()
    until(lambda: server.get("/x?n=9").status == 500, "an answer")
    until(lambda: any(one.message == "said 9" for one in reading.read(root, Query())), "said 9")
    kept = [one.message for one in reading.read(root, Query(function="/x")) if one.stream == "stdout"]
    assert set(kept) == {f"said {number}" for number in (0, 1, 2, 3, 9)}


IMPORTS = """
    import logging, os, sys
    token = os.environ["MY_TOKEN"]
    print("x" * 16380 + token)
    logging.warning("%s", token)
    print("\\x1b[31mred", flush=True)
    raise ValueError(f"\\x1b[2J {token}")
"""


@pytest.mark.parametrize("kind", ["build", "start"])
def test_what_a_trial_import_prints_and_why_it_fails_is_masked_and_harmless(tmp_path: Path, kind: str) -> None:
    write(tmp_path, {"app/x/route.py": IMPORTS, ".env.local": f"MY_TOKEN='{TOKEN}'\n"})
    port = ["--port", "0"] if kind == "start" else []
    arguments = [sys.executable, "-m", "lampyr", kind, str(tmp_path), *port]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert not any(HARMFUL.search(line) for line in (done.stdout + done.stderr).split("\n"))
    assert "s3cr3t" not in done.stdout + done.stderr and "th=signs" not in done.stdout + done.stderr
    assert "WARNING:root:***" in done.stderr and r"ValueError: \x1b[2J ***" in done.stderr


def test_a_crash_and_what_to_do_about_it_are_one_line_of_their_function(serve: Serve) -> None:
    server = serve({"app/x/route.py": "import os\ndef GET(): os._exit(4)\n"})
    id = server.get("/x").headers["x-lampyr-id"]
    (line,) = until(lambda: [one for one in logs(server.root, "--id", id) if one["stream"] == "platform"], "the line")
    assert line["level"] == "error" and line["function"] == "/x"
    assert line["message"].startswith("the process exited with status 4\nhint: look for sys.exit")

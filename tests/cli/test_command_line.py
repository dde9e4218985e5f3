"""The command line as people and scripts meet it: the real executable, its streams and its exit codes (SPEC 5)."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lampyr.cli import terminal

LAMPYR = str(Path(sys.executable).parent / "lampyr")
TOP_LEVEL = ["init", "dev", "build", "start", "model"]


def lampyr(
    *arguments: str, cwd: Path | None = None, stdout: int = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAMPYR, *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_version_goes_to_stdout() -> None:
    done = lampyr("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lampyr 0.")


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "lampyr", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == lampyr("--version").stdout


@pytest.mark.parametrize("arguments", [[], *([name] for name in TOP_LEVEL)], ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_stdout(arguments: list[str], flag: str) -> None:
    done = lampyr(*arguments, flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(['lampyr', *arguments])} [OPTIONS]")


def test_what_each_command_does_stands_whole_in_the_list() -> None:
    assert "..." not in lampyr("--help").stdout.partition("Commands:")[2]


def test_the_door_shows_how_demo_is_used_without_installing_anything(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "do", tmp_path)
    done = subprocess.run([tmp_path / "do", "demo", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ./do COMMAND") and os.listdir(tmp_path) == ["do"]


WRONG = {
    "": "which command?",
    "buidl": "no such command 'buidl'. Did you mean 'build'?",
    "zzz": "no such command 'zzz'",
    "model": "which command?",
    "model lst": "no such command 'lst'. Did you mean 'list'?",
    "dev --prot 1": "no such option '--prot'. (Did you mean one of: '--host', '--port'?)",
    "start -q": "no such option '-q'",
    "dev -p": "option '-p' requires an argument",
    "dev -p many": "invalid value for '-p' / '--port': 'many' is not a whole number from 0 to 65535",
    "dev -p 65536": "invalid value for '-p' / '--port'",
    "dev -p -1": "invalid value for '-p' / '--port'",
    "init": "missing argument 'DIR'",
    "init x --template rails": "'rails' is not one of 'chat', 'hello', 'fastapi'",
    "build a b": "got unexpected extra argument (b)",
    "build --json=yes": "option '--json' does not take a value",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_exit_code_2_and_says_what_and_how(line: str, tmp_path: Path) -> None:
    done = lampyr(*line.split(), cwd=tmp_path)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("lampyr: error: ")
    assert WRONG[line] in error
    assert hint.startswith("hint: `lampyr")
    assert "--help" in hint
    assert list(tmp_path.iterdir()) == []
    if "--json" not in line:
        assert done.stdout == ""


FAILING: dict[str, Callable[[Path], list[str]]] = {
    "usage": lambda _: ["build", "--josn"],
    "no folder": lambda path: ["build", str(path / "absent")],
    "not a folder": lambda path: ["dev", __file__],
    "no project": lambda path: ["start", str(path)],
    "init over a file": lambda path: ["init", __file__],
}


@pytest.mark.parametrize("case", FAILING)
def test_an_error_is_also_json_where_that_is_asked_for(case: str, tmp_path: Path) -> None:
    plain = lampyr(*FAILING[case](tmp_path))
    as_json = lampyr(*FAILING[case](tmp_path), "--json")
    assert plain.returncode == as_json.returncode == (2 if case == "usage" else 1)
    assert plain.stdout == ""
    error = json.loads(as_json.stdout)["error"]
    assert error["code"] == ("USAGE" if case == "usage" else "PROJECT")
    assert as_json.stderr == f"lampyr: error: {error['message']}\nhint: {error['hint']}\n" == plain.stderr


@pytest.mark.parametrize("name", ["logs", "usage"])
def test_where_nothing_can_have_been_kept_it_says_so(name: str, project: Path, tmp_path: Path) -> None:
    for more in ([], ["--state-dir", str(tmp_path / "absent")]):
        done = lampyr(name, str(tmp_path), *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{tmp_path} is not a project: looked for" in done.stderr and "\nhint: name the folder" in done.stderr
        assert lampyr(name, str(project), *more).returncode == 0, "a project of which nothing is kept yet"
    (tmp_path / ".lampyr").mkdir()
    assert lampyr(name, str(tmp_path)).returncode == 0, "what a server has kept is there without its project"


def test_a_short_time_of_no_whole_hours_is_said_to_count_from_one(project: Path) -> None:
    done = lampyr("usage", str(project), "--since", "90s")
    assert done.returncode == 0 and "sums are kept by the hour: this counts from 20" in done.stderr
    for whole in (time.strftime("%Y-%m-%d %H:00", time.gmtime()), "24h", "2020-01-01 12:30"):
        assert "by the hour" not in lampyr("usage", str(project), "--since", whole).stderr


def test_a_setting_that_is_wrong_names_file_and_line(project: Path) -> None:
    (project / "lampyr.toml").write_text("[server]\n\nprot = 1\n")
    done = lampyr("start", str(project), "-p", "0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "lampyr.toml:3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["start", "dev", "build"])
def test_settings_that_are_wrong_are_named_together(command: str, project: Path) -> None:
    (project / "lampyr.toml").write_text("[server]\nprot = 1\n[functions]\nmemory = 1\n")
    done = lampyr(command, str(project), "--json")
    told = [line for line in done.stderr.splitlines() if line.startswith("lampyr: error: ")]
    assert [line.split()[2] for line in told] == ["lampyr.toml:2:", "lampyr.toml:4:", "lampyr.toml:"]
    assert done.returncode == 1 and done.stderr.count("hint: ") == 3
    found = json.loads(done.stdout)
    places = found["errors"] if command == "build" else found["error"]["problems"]
    assert [(one["file"], one["line"]) for one in places] == [("lampyr.toml", 2), ("lampyr.toml", 4)]
    assert found["error"]["code"] == "CONFIG" and all(one["message"] and one["hint"] for one in places)


def test_the_reader_of_a_pipe_may_leave() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = lampyr("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("line", ["doctor", "model list", "secrets set X {}"])
def test_a_standard_stream_that_is_closed_is_nowhere(line: str, closed: str, project: Path) -> None:
    command = f"{LAMPYR} {line.format(project)} {closed}"
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "internal error" not in done.stderr
    assert done.returncode == (1 if line.startswith("secrets") else 0)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_said(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = lampyr("--help", stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    hint = "free some space there, or write to another place"
    assert done.stderr == f"lampyr: error: No space left on device\nhint: {hint}\n"


def test_a_table_in_a_pipe_has_whole_cells_and_no_blanks_at_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("ID", "URL"), [("a" * 300, "http://x"), ("[b]", "-")])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "URL"] and [row.split() for row in rows] == [["a" * 300, "http://x"], ["[b]", "-"]]
    assert not [line for line in (head, *rows) if line != line.rstrip()]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_in_json_that_the_disk_does_not_take_is_said_on_stderr(unbuffered: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = lampyr("usage", str(tmp_path / "absent"), "--json", stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr.startswith("lampyr: error: there is no folder ") and "Traceback" not in done.stderr


def stderr_of_terminal(*arguments: str, **env: str) -> str:
    """What the command writes to a terminal on stderr."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen([LAMPYR, *arguments], env={**os.environ, "TERM": "xterm", **env}, stderr=theirs)
        process.wait(60)
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_colour_is_for_terminals_and_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in stderr_of_terminal("nonsense")
    assert "\x1b" not in stderr_of_terminal("nonsense", NO_COLOR="1")
    assert "\x1b" not in stderr_of_terminal("nonsense", TERM="dumb")
    assert "\x1b" not in lampyr("nonsense").stderr


# A fault of our own, made by taking the command's module away from under it.
BROKEN = "import sys; sys.modules['lampyr.build.scan'] = None; from lampyr.cli import run; sys.exit(run(sys.argv[1:]))"


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_fault_of_our_own_shows_its_traceback_only_when_asked(debug: str, project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "build", str(project), "--json"],
        env={**os.environ, "LAMPYR_DEBUG": debug},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "INTERNAL"
    assert "lampyr: error: internal error: ModuleNotFoundError" in done.stderr
    assert ("Traceback" in done.stderr) == bool(debug)


def test_a_small_command_does_not_load_the_server() -> None:
    code = "import sys; from lampyr.cli import run; run(['--version']); print([*sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("asyncio", "rich", "psutil", "uvloop", "httptools", "lampyr.serve", "importlib.metadata"):
        assert f"'{heavy}'" not in loaded

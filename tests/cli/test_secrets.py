"""`lampyr secrets` as people and scripts use it (SPEC 5): values come from stdin or a prompt and never come back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VALUE = "sk-canary-1a2b3c4d5e6f"


def secrets(project: Path, *arguments: str, given: str | bytes = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "lampyr", "secrets", *arguments],
        cwd=project,
        env={**os.environ, **env},
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=60,
        check=False,
    )


def listed(project: Path, *arguments: str) -> list[dict[str, Any]]:
    done = secrets(project, "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_set_list_remove(project: Path) -> None:
    done = secrets(project, "set", "API_KEY", given=f"{VALUE}\n")
    assert (done.returncode, done.stdout) == (0, b"")
    (row,) = listed(project)
    assert row.pop("updated_at").endswith("Z")
    everywhere = ["development", "preview", "production"]
    assert row == {"name": "API_KEY", "environments": everywhere, "functions": None, "version": 1}
    assert secrets(project, "remove", "API_KEY", "--env", "preview").returncode == 0
    assert listed(project)[0]["environments"] == ["development", "production"]
    assert listed(project, "--env", "preview") == []
    assert secrets(project, "remove", "API_KEY").returncode == 0
    assert listed(project) == []
    gone = secrets(project, "remove", "API_KEY")
    assert gone.returncode == 1 and b"there is no secret API_KEY" in gone.stderr


def test_environments_and_grants(project: Path) -> None:
    secrets(project, "set", "API_KEY", given=VALUE)
    secrets(project, "set", "API_KEY", "--env", "production", "--only", "/api/chat", given=VALUE)
    rows = [(one["environments"], one["functions"], one["version"]) for one in listed(project)]
    assert rows == [(["development", "preview"], None, 1), (["production"], ["/api/chat"], 2)]
    secrets(project, "set", "API_KEY", "--everyone", given=VALUE)
    assert [(one["functions"], one["version"]) for one in listed(project)] == [(None, 3)]


@pytest.mark.parametrize("arguments", [("A_KEY", VALUE), ("A_KEY", VALUE, "more"), (f"A_KEY={VALUE}",)])
def test_a_value_on_the_command_line_is_refused_and_not_repeated(project: Path, arguments: tuple[str, ...]) -> None:
    done = secrets(project, "set", *arguments, given="another")
    assert done.returncode == 2 and b"never given on the command line" in done.stderr
    assert VALUE.encode() not in done.stderr + done.stdout
    assert listed(project) == []


def test_a_value_never_comes_back(project: Path) -> None:
    said = b""
    for command in (
        ["set", "API_KEY"], ["set", "API_KEY", "--json"], ["list"], ["list", "--json"], ["audit"], ["audit", "--json"],
        ["audit", "--verify"], ["rotate"], ["remove", "API_KEY", "--json"],
    ):  # fmt: skip
        done = secrets(project, *command, given=VALUE)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert VALUE.encode() not in said
    for path in (project / ".lampyr").rglob("*"):
        assert path.is_dir() or VALUE.encode() not in path.read_bytes()


def test_a_prompt_does_not_show_what_is_typed(project: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lampyr", "secrets", "set", "API_KEY"],
        cwd=project,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes the controlling terminal
    )
    os.close(theirs)
    shown = b""
    while b"not shown" not in shown:
        shown += os.read(ours, 1024)
    os.write(ours, f"{VALUE}\n".encode())
    try:
        while data := os.read(ours, 1024):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0 and VALUE.encode() not in shown
    assert [one["name"] for one in listed(project)] == ["API_KEY"]


def test_import(project: Path) -> None:
    (project / ".env.local").write_text(f"API_KEY={VALUE}\nURL=https://x/?$API_KEY\nPUBLIC_TITLE=Lamps\nEMPTY=\n")
    done = secrets(project, "import", ".env.local", "--json")
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["imported"]] == ["API_KEY", "URL"]
    assert told["skipped"] == ["EMPTY", "PUBLIC_TITLE"]
    (project / ".env.production.local").write_text("ONLY_THERE=something\n")
    secrets(project, "import", ".env.production.local")
    assert {one["name"]: one["environments"] for one in listed(project)}["ONLY_THERE"] == ["production"]
    assert b"there is no file" in secrets(project, "import", ".env.missing").stderr
    (project / ".env.broken").write_text(f"what {VALUE} is this")
    broken = secrets(project, "import", ".env.broken")
    assert broken.returncode == 1 and VALUE.encode() not in broken.stderr


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("PUBLIC_KEY", VALUE, 2, "browsers see what begins with PUBLIC_"),
        ("LAMPYR_KEY", VALUE, 2, "Lampyr's own"),
        ("1ST", VALUE, 2, "cannot name a secret"),
        ("A_KEY", "", 1, "is empty"),
        ("A_KEY", "\n", 1, "is empty"),
        ("A_KEY", "a\0b", 1, "NUL"),
        ("A_KEY", b"\xff\xfe", 1, "not UTF-8"),
        ("A_KEY", "x" * 70_000, 1, "larger than 64 KiB"),
    ],
)
def test_what_cannot_be_kept(project: Path, name: str, value: str | bytes, code: int, said: str) -> None:
    done = secrets(project, "set", name, given=value)
    assert done.returncode == code and said in done.stderr.decode()
    assert listed(project) == []


def test_what_is_too_short_to_be_masked_is_told(project: Path) -> None:
    done = secrets(project, "set", "PIN_TOKEN", given="1234")
    assert done.returncode == 0 and b"warning: PIN_TOKEN is too short to be masked" in done.stderr


def test_an_only_that_names_no_route(project: Path) -> None:
    done = secrets(project, "set", "API_KEY", "--only", "chat", given=VALUE)
    assert done.returncode == 2 and b"such as /api/chat" in done.stderr


def test_an_only_of_a_function_that_is_not_there(project: Path) -> None:
    done = secrets(project, "set", "API_KEY", "--only", "/nowhere", "--json", given=VALUE)
    assert done.returncode == 0 and json.loads(done.stdout)["functions"] == ["/nowhere"]
    assert b"lampyr: warning: there is no function /nowhere\nhint: functions: " in done.stderr
    (route,) = [line.removeprefix(b"hint: functions: ") for line in done.stderr.splitlines() if b"functions:" in line]
    found = route.decode().split(", ")[0]
    assert b"warning" not in secrets(project, "set", "API_KEY", "--only", found, given=VALUE).stderr


def test_rotate(project: Path) -> None:
    secrets(project, "set", "API_KEY", given=VALUE)
    phrase, key = "correct horse battery", "0f" * 32
    assert json.loads(secrets(project, "rotate", "--json").stdout) == {"master": "key file"}
    assert (
        json.loads(secrets(project, "rotate", "--passphrase", "--json", given=phrase).stdout)["master"] == "passphrase"
    )
    assert b"there is none" in secrets(project, "list").stderr
    wrong = secrets(project, "rotate", LAMPYR_MASTER_KEY=phrase)
    assert wrong.returncode == 2 and b"--stdin takes the new one" in wrong.stderr
    assert secrets(project, "rotate", "--stdin", given=key, LAMPYR_MASTER_KEY=phrase).returncode == 0
    assert secrets(project, "list", LAMPYR_MASTER_KEY=phrase).returncode == 1
    assert secrets(project, "rotate", "--key-file", LAMPYR_MASTER_KEY=key).returncode == 0
    assert listed(project)[0]["name"] == "API_KEY"


def test_audit(project: Path) -> None:
    secrets(project, "set", "API_KEY", "--only", "/api/chat", given=VALUE)
    entries = json.loads(secrets(project, "audit", "--json").stdout)
    assert [(one["action"], one["name"], one["allowed"], one["functions"]) for one in entries] == [
        ("set", "API_KEY", True, ["/api/chat"])
    ]
    assert b"set API_KEY" in (shown := secrets(project, "audit").stdout) and shown.endswith(b" /api/chat\n")
    verified = secrets(project, "audit", "--verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)) == (0, {"ok": True, "entries": 1})
    trail = project / ".lampyr/vault/audit.log"
    trail.write_bytes(trail.read_bytes().replace(b"/api/chat", b"/api/chit"))
    broken = secrets(project, "audit", "--verify", "--json")
    assert broken.returncode == 1 and json.loads(broken.stdout)["error"]["code"] == "VAULT"


def test_a_vault_that_was_changed_is_one_line(project: Path) -> None:
    secrets(project, "set", "API_KEY", given=VALUE)
    vault = project / ".lampyr/vault/secrets.vault"
    data = bytearray(vault.read_bytes())
    data[-1] ^= 1
    vault.write_bytes(data)
    for command in (["list"], ["set", "API_KEY"], ["remove", "API_KEY"], ["rotate"], ["audit", "--verify"]):
        done = secrets(project, *command, given=VALUE)
        error, hint = done.stderr.decode().splitlines()
        assert done.returncode == 1 and done.stdout == b""
        assert error.startswith("lampyr: error: the vault ") and hint.startswith("hint: ")


def test_a_folder_that_is_no_project_gets_no_vault(tmp_path: Path) -> None:
    done = secrets(tmp_path, "set", "API_KEY", given=VALUE)
    assert done.returncode == 1 and b"is not a project" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_folder_and_another_state_directory(project: Path, tmp_path: Path) -> None:
    state = tmp_path / "elsewhere"
    done = secrets(tmp_path, "set", "API_KEY", str(project), "--state-dir", str(state), given=VALUE)
    assert done.returncode == 0 and not (project / ".lampyr").exists()
    assert listed(tmp_path, str(project), "--state-dir", str(state))[0]["name"] == "API_KEY"

"""`lampyr init`: a project that runs as it is, and never at the cost of what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LAMPYR = str(Path(sys.executable).parent / "lampyr")
TEMPLATES = ["chat", "hello", "fastapi"]


def init(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAMPYR, "init", *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_becomes_a_project_without_errors(template: str, tmp_path: Path) -> None:
    done = init(tmp_path / "new", "--template", template)
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'new'}\n"
    assert "lampyr dev" in done.stderr
    report = subprocess.run([LAMPYR, "build", tmp_path / "new", "--json"], capture_output=True, text=True, check=False)
    assert json.loads(report.stdout)["errors"] == []
    assert json.loads(report.stdout)["functions"] != []
    assert report.returncode == 0


def test_chat_is_the_default(tmp_path: Path) -> None:
    init(tmp_path / "a")
    init(tmp_path / "b", "--template", "chat")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert "app/api/chat/route.py" in contents(tmp_path / "a")


def test_json_lists_what_was_made(tmp_path: Path) -> None:
    made = json.loads(init(tmp_path / "new", "--json").stdout)
    assert made["path"] == str(tmp_path / "new")
    assert made["template"] == "chat"
    assert set(made["files"]) == set(contents(tmp_path / "new"))


def test_state_and_secrets_are_ignored_by_git(tmp_path: Path) -> None:
    init(tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    paths = [".lampyr/lock", ".env.local", ".env.production.local", ".venv/bin/python", "app/__pycache__/x.pyc"]
    shown = subprocess.run(["git", "-C", tmp_path, "check-ignore", *paths], capture_output=True, text=True, check=False)
    assert shown.stdout.split() == paths
    kept = subprocess.run(["git", "-C", tmp_path, "check-ignore", "lampyr.toml", ".env"], check=False)
    assert kept.returncode == 1


def test_every_file_can_be_edited(tmp_path: Path) -> None:
    init(tmp_path / "new")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "new").rglob("*"))


def test_functions_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    assert subprocess.run([LAMPYR, "init", tmp_path / "new"], capture_output=True, umask=0o077).returncode == 0
    made = list((tmp_path / "new").rglob("*"))
    assert made and all(
        path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in made if path.name != ".gitignore"
    )


def test_the_folder_one_stands_in(tmp_path: Path) -> None:
    done = init(".", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "lampyr.toml").exists()
    assert "cd " not in done.stderr


def test_a_second_time_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "lampyr.toml").write_text("# mine\n")
    before = contents(tmp_path)
    done = init(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "lampyr.toml" in done.stderr
    assert contents(tmp_path) == before


def test_what_is_there_and_not_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".gitignore").write_text("/private")
    assert init(tmp_path, "--template", "hello").returncode == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[0] == "/private"
    assert ".lampyr/" in ignored


def occupied_by_a_file(folder: Path) -> None:
    folder.write_text("mine")


def occupied_by_a_dead_link(folder: Path) -> None:
    folder.symlink_to("nowhere")


def with_a_file_for_a_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "app").write_text("mine")


def with_a_dead_link_for_a_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "lampyr.toml").symlink_to("nowhere")


def with_a_project_in_src(folder: Path) -> None:
    (folder / "src/app").mkdir(parents=True)


@pytest.mark.parametrize(
    "occupy",
    [
        occupied_by_a_file,
        occupied_by_a_dead_link,
        with_a_file_for_a_folder,
        with_a_dead_link_for_a_file,
        with_a_project_in_src,
    ],
)
def test_what_is_in_the_way_is_named_and_stays(occupy: object, tmp_path: Path) -> None:
    assert callable(occupy)
    folder = tmp_path / "there"
    occupy(folder)
    before = contents(tmp_path)
    done = init(folder)
    assert done.returncode == 1
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("lampyr: error: cannot make a project ")
    assert "there" in error
    assert hint.startswith("hint: ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("folder", ["/proc/new/project", "/dev/null/project"])
def test_a_place_that_cannot_be_written_is_named(folder: str) -> None:
    done = init(folder)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lampyr: error: cannot make a project in {folder}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_is_left_as_it_was(tmp_path: Path) -> None:
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    script = (
        f'cd "{tmp_path}" && mount -t tmpfs -o size=8k none . && cd "$PWD" && "{LAMPYR}" init new; echo rc=$?; ls -A'
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "rc=" not in done.stdout or "mount" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.stdout == "rc=1\n"
    assert "No space left on device" in done.stderr

"""./do, with a pip that only talks: what a person sees while it installs."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
# Stands for .venv/bin/python: "new enough", and a pip with 120 lines to say and an exit code of the test's.
PYTHON = """#!/bin/sh
[ "$1" = -m ] || exit 0
for number in $(seq 120); do echo "Collecting package-$number"; done
[ "$PIP_EXIT" = 0 ] || echo "ERROR: no such package" >&2
exit "$PIP_EXIT"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "do", tmp_path / "do")
    (tmp_path / "pyproject.toml").write_text("")
    programs = {"python": PYTHON, "lampyr": "#!/bin/sh\necho lampyr $1\n"}
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, text in programs.items():
        (tmp_path / ".venv/bin" / name).write_text(text)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


def in_a_terminal(checkout: Path, pip_exit: int) -> tuple[int, str]:
    """The exit code, and what a terminal is told."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PIP_EXIT": str(pip_exit)}
    process = subprocess.Popen(["./do", "demo"], cwd=checkout, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux tells the end of a terminal so
        pass
    os.close(ours)
    return process.wait(60), shown.decode()


def test_in_a_terminal_pip_has_one_line(checkout: Path) -> None:
    code, shown = in_a_terminal(checkout, 0)
    assert code == 0 and "\x1b[KCollecting package-120" in shown
    assert len(shown.split("\n")) < 10
    assert (checkout / ".venv/installed-local").exists()


def test_what_pip_could_not_do_is_shown(checkout: Path) -> None:
    code, shown = in_a_terminal(checkout, 1)
    assert code == 1 and "ERROR: no such package" in shown and "do: error: pip could not install" in shown
    assert not (checkout / ".venv/installed-local").exists()


def test_elsewhere_pip_is_asked_to_be_quiet(checkout: Path) -> None:
    (checkout / ".venv/bin/python").write_text('#!/bin/sh\n[ "$1" != -m ] || echo "$@"\n')
    done = subprocess.run(["./do", "demo"], cwd=checkout, capture_output=True, text=True, check=True)
    (asked,) = [line for line in done.stderr.splitlines() if line.startswith("-m pip install")]
    assert asked.endswith(" -q") and "--progress-bar off" in asked

"""./do: what a person sees while it installs, with a pip that only talks; and whose failure has a second chance."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import write

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


# --- a second chance

# Runs what the test has in the place of our tests; pip does nothing.
RUNS = """#!/bin/sh
[ "$1 $2" = "-m pip" ] || exec PYTHON "$@"
"""
SUITE = {
    "pyproject.toml": """
        [tool.pytest.ini_options]
        addopts = "-q --strict-markers -p xdist"
        markers = ["alone: ..."]
    """,
    "src/nothing.py": "",
    "hatch_build.py": "",
    "tests/test_steady.py": """
        import pytest
        def test_one(): pass
        @pytest.mark.alone
        def test_two(): pass
    """,
}
# Each fails the first time that it is run.
UNSTEADY = """
    import pathlib, pytest
    def first(name):
        mark = pathlib.Path(__file__).with_name(name)
        return not mark.exists() and not mark.touch()
    @pytest.mark.parametrize("name", ["a b", *map(str, range(1, COUNT))])
    def test_many(name): assert not first(name), "for once"
    @pytest.mark.alone
    def test_measured(): assert not first("measured")
"""
BROKEN = "def test_broken(): assert 1 == 2, 'as always'\n"


def run(checkout: Path, files: dict[str, str]) -> tuple[int, str, str]:
    """./do test on these tests: its exit code, and what it says on both streams."""
    write(checkout, {**SUITE, **files})
    programs = {
        "python": RUNS.replace("PYTHON", sys.executable), "chromium": "#!/bin/sh\n", "chromedriver": "#!/bin/sh\n",
    }  # fmt: skip
    for name, text in programs.items():
        (checkout / ".venv/bin" / name).write_text(text)
        (checkout / ".venv/bin" / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others take longer to load than these tests to run
    done = subprocess.run(["./do", "test"], cwd=checkout, capture_output=True, text=True, timeout=120, env=env)
    return done.returncode, done.stdout, done.stderr


def test_who_fails_once_and_passes_alone_is_named_at_the_end_of_a_green_run(checkout: Path) -> None:
    code, out, err = run(checkout, {"tests/test_unsteady.py": UNSTEADY.replace("COUNT", "2")})
    names = " ".join(f"tests/test_unsteady.py::test_{one}" for one in ("many[1]", "many[a b]", "measured"))
    assert (code, err.splitlines()[-1]) == (0, f"do: unsteady: these failed once and passed alone: {names}"), out + err
    assert "AssertionError: for once" in out and "test_many[a b] PASSED" in out


def test_who_fails_twice_fails(checkout: Path) -> None:
    files = {"tests/test_unsteady.py": UNSTEADY.replace("COUNT", "1"), "tests/test_broken.py": BROKEN}
    code, out, err = run(checkout, files)
    assert code == 1 and out.count("AssertionError: as always") >= 2 and "unsteady:" not in err, out + err
    assert err.splitlines()[-1] == "do: error: some tests failed; the names are above"


def test_more_than_three_that_fail_have_no_second_chance(checkout: Path) -> None:
    code, out, err = run(checkout, {"tests/test_unsteady.py": UNSTEADY.replace("COUNT", "3")})
    assert code == 1 and "once more" not in err, out + err


def test_a_run_that_does_not_come_to_its_end_has_none_either(checkout: Path) -> None:
    """What was not run has not passed."""
    files = {"tests/test_unsteady.py": UNSTEADY.replace("COUNT", "1"), "tests/test_syntax.py": "def test_one(:\n"}
    code, out, err = run(checkout, files)
    assert code == 1 and "once more" not in err, out + err


def test_a_steady_run_says_nothing_of_it(checkout: Path) -> None:
    code, out, err = run(checkout, {})
    assert code == 0 and "once more" not in err and "unsteady" not in err, out + err

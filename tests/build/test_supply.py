"""What functions ask for is installed by the real uv, once, from wheels made here; what is there already is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from serving import until, write
from uv import find_uv_bin
from wheels import index, sdist, source, wheel

from lampyr import config
from lampyr.build.scan import scan
from lampyr.build.supply import Supplier, Supply
from lampyr.types import Problem

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
ROUTE = "def GET():\n    return 1\n"
OWN = '# /// script\n# dependencies = [\n#   "{}",\n# ]\n# ///\n' + ROUTE
SECRET = "a-secret-of-mine"


class Place:
    """A project, its state, and an index of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.wheels = folder / "project", folder / "wheels"
        self.env = {**os.environ, **index(self.wheels, folder / "cache"), "MY_API_KEY": SECRET}
        self.told: list[str] = []
        self.write({"app/one/route.py": ROUTE, "app/two/route.py": ROUTE})

    def write(self, files: dict[str, str]) -> None:
        write(self.root, files)

    def supplier(self, root: Path | None = None) -> Supplier:
        return Supplier((root or self.root) / ".lampyr", self.env, self.told.append)

    def get(self) -> Supply:
        return self.supplier().get(scan(self.root, config.load(self.root)))

    def look(self, root: Path | None = None) -> Supply:
        return self.supplier().look(scan(root or self.root, config.load(root or self.root), self.root))

    def sets(self) -> list[str]:
        found = sorted(path.name for path in (self.root / ".lampyr/packages").glob("*") if path.is_dir())
        return [name for name in found if "." not in name]

    def problem(self) -> Problem:
        (problem,) = self.get().problems
        return problem


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def modules(supply: Supply, route: str) -> dict[str, str]:
    """The modules of its packages, and what is in them."""
    return {file.stem: file.read_text() for path in supply.packages[route].paths for file in Path(path).glob("*.py")}


def test_a_project_that_names_nothing_has_what_is_beside_lampyr(place: Place) -> None:
    for files in ({}, {"requirements.txt": "# none\n"}, {"pyproject.toml": "[tool.lampyr]\n"}):
        place.write(files)
        supply = place.get()
        assert not supply.packages["/one"].isolated and not supply.missing and not supply.problems
    assert not place.told and not (place.root / ".lampyr").exists()


def test_requirements_are_installed_with_what_they_need(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0", requires=["wick>=2"])
    for version in ("1.0", "2.0", "3.0"):
        wheel(place.wheels, "wick", version)
    place.write({"requirements.txt": "-r more.txt\n", "more.txt": "lamp\n", "limits.txt": "wick<3\n"})
    place.write({"more.txt": "lamp\n-c limits.txt\n"})
    supply = place.get()
    found = modules(supply, "/one")
    assert found["wick"] == "VERSION = '2.0'\n" and "lamp" in found
    assert supply.packages["/one"] == supply.packages["/two"] and supply.packages["/one"].isolated
    (site,) = [path for path in supply.packages["/one"].paths if path.startswith(str(place.root))]
    assert [*Path(site).glob("__pycache__/lamp.*.pyc")], "nobody may compile them later"
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in Path(site).rglob("*.py"))


def test_pyproject_without_a_lock_is_resolved_and_its_groups_are_not(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0")
    place.write(
        {
            "pyproject.toml": """
                [project]
                name = "shop"
                version = "1"
                dependencies = ["lamp"]
                [dependency-groups]
                dev = ["not-to-be-had"]
            """
        }
    )
    assert "lamp" in modules(place.get(), "/one")


def uv(place: Place, *arguments: str | Path) -> None:
    command = [find_uv_bin(), *map(str, arguments)]
    done = subprocess.run(command, cwd=place.root, env=place.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def lock(place: Place) -> None:
    uv(place, "lock", "--python", sys.executable)


PYPROJECT = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [\n  "lamp",\n]\n'


def test_a_lock_is_kept_to(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0")
    wheel(place.wheels, "lantern", "1.0")
    place.write(
        {"pyproject.toml": PYPROJECT + '[dependency-groups]\ndev = ["lantern"]\n', "requirements.txt": "nope\n"}
    )
    lock(place)
    wheel(place.wheels, "lamp", "2.0")
    found = modules(place.get(), "/one")
    assert found["lamp"] == "VERSION = '1.0'\n" and "lantern" not in found


def test_what_is_not_what_was_pinned_is_refused(place: Place) -> None:
    digest = sha256(wheel(place.wheels, "lamp", "1.0").read_bytes()).hexdigest()
    place.write({"requirements.txt": f"lamp==1.0 --hash=sha256:{digest}\n"})
    assert "lamp" in modules(place.get(), "/one")
    wheel(place.wheels, "lamp", "1.0", {"lamp.py": "steal()"})
    place.env["UV_CACHE_DIR"] += "-of-another-machine"
    place.write({"requirements.txt": f"lamp==1.0 --hash=sha256:{digest} # as before\n"})
    problem = place.problem()
    assert "ash mismatch" in problem.message and "locked" in problem.hint
    assert (problem.file, problem.line) == ("requirements.txt", 1) and len(place.sets()) == 1


def test_a_lock_that_is_older_than_what_is_asked_for_is_an_error(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0")
    place.write({"pyproject.toml": PYPROJECT})
    lock(place)
    place.write({"pyproject.toml": PYPROJECT.replace('"lamp"', '"lamp", "Wick_Holder"')})
    assert (place.problem().line, place.problem().hint) == (6, "run `uv lock`")
    assert "it has no Wick_Holder" in place.problem().message
    place.write({"pyproject.toml": PYPROJECT.replace('"lamp"', '"lamp>=2"')})
    assert "it has lamp 1.0, and lamp>=2 is asked for" in place.problem().message


def test_a_route_file_has_what_it_names_and_the_others_have_the_projects(place: Place) -> None:
    for version in ("1.0", "2.0"):
        wheel(place.wheels, "lamp", version)
    place.write({"requirements.txt": "lamp==1.0\n"})
    for name in ("two", "three"):
        place.write({f"app/{name}/route.py": OWN.format("lamp >= 2")})
    supply = place.get()
    assert modules(supply, "/one")["lamp"] == "VERSION = '1.0'\n"
    assert modules(supply, "/two")["lamp"] == "VERSION = '2.0'\n"
    assert supply.packages["/two"] == supply.packages["/three"] != supply.packages["/one"]
    assert len(place.sets()) == 2


def test_a_route_file_may_have_a_lock_of_its_own(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0")
    place.write({"app/two/route.py": OWN.format("lamp")})
    uv(place, "lock", "--script", "app/two/route.py", "--python", sys.executable)
    wheel(place.wheels, "lamp", "2.0")
    assert modules(place.get(), "/two")["lamp"] == "VERSION = '1.0'\n"
    place.write({"app/two/route.py": OWN.format("lamp>=2")})
    problem = place.problem()
    assert (problem.file, problem.line) == ("app/two/route.py", 2) and "it has lamp 1.0" in problem.message
    assert problem.hint == "run `uv lock --script app/two/route.py`"


def test_what_the_environment_has_is_not_installed(place: Place) -> None:
    place.write({"requirements.txt": "packaging>=20\nlampyr\n", "app/two/route.py": OWN.format("lampyr")})
    supply = place.get()
    assert not supply.packages["/one"].isolated and not supply.packages["/two"].isolated
    assert not supply.problems and not place.sets()
    assert not [line for line in place.told if "installing" in line]


def test_what_the_environment_has_is_asked_once_and_again_when_it_changes(place: Place) -> None:
    place.write({"requirements.txt": "lamp\n"})
    wheel(place.wheels, "lamp", "1.0")
    venv = place.root / ".venv"
    uv(place, "venv", "--python", sys.executable, venv)
    uv(place, "pip", "install", "--python", venv / "bin/python", "lamp")
    assert place.get().packages["/one"].paths[-1].startswith(str(venv))
    without_uv = place.supplier()
    without_uv.stop()
    project = scan(place.root, config.load(place.root))
    assert not without_uv.look(project).missing and not place.sets()
    uv(place, "pip", "uninstall", "--python", venv / "bin/python", "lamp")
    assert without_uv.look(project).missing
    assert ".lampyr/packages" in place.get().packages["/one"].paths[-1]


@pytest.mark.parametrize(
    ("files", "place_of", "message", "hint"),
    [
        ({"requirements.txt": "# x\nlamp\nno-such.Thing>=2\n"}, ("requirements.txt", 3), "no-such-thing", "UV_INDEX"),
        ({"requirements.txt": "lamp\n\nlamp==7\n"}, ("requirements.txt", 1), "lamp==7", "version"),
        ({"requirements.txt": "lamp\nlamp foo bar\n"}, ("requirements.txt", 1), "parse", ""),
        ({"app/two/route.py": OWN.format("nothing")}, ("app/two/route.py", 3), "nothing", ""),
        (
            {"app/two/route.py": "# /// script\n# requires-python = '<3.11'\n# ///\n" + ROUTE},
            ("app/two/route.py", 2),
            "requires-python is <3.11, and Lampyr runs on Python 3",
            "install Lampyr into a Python",
        ),
        (
            {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=4"\n'},
            ("pyproject.toml", 3),
            "requires-python is >=4",
            "widen",
        ),
        (
            {"requirements.txt": "./none\n"},
            ("requirements.txt", 1),
            "not found at: none",
            "uv pip install -r requirements.txt",
        ),
    ],
)
def test_what_cannot_be_had_is_an_error_with_its_place(
    place: Place, files: dict[str, str], place_of: tuple[str, int | None], message: str, hint: str
) -> None:
    wheel(place.wheels, "lamp", "1.0")
    place.write(files)
    problem = place.problem()
    assert (problem.file, problem.line) == place_of, problem
    assert message in problem.message and len(problem.message) < 700
    assert hint in problem.hint
    assert not place.sets()


def test_a_function_that_can_have_its_packages_is_not_kept_by_one_that_cannot(place: Place) -> None:
    place.write({"app/two/route.py": OWN.format("nothing")})
    problems = {one.route: one.problem for one in place.get().project.functions}
    assert problems["/one"] is None and problems["/two"] is not None


def test_credentials_are_never_shown(place: Place) -> None:
    place.write({"requirements.txt": "lamp\n"})
    del place.env["UV_CONFIG_FILE"]
    place.env |= {"UV_DEFAULT_INDEX": "http://me:pass%20word@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    problem = place.problem()
    shown = f"{problem} {place.told}"
    assert "127.0.0.1:9" in shown and "reachable" in problem.hint
    assert "pass%20word" not in shown and "pass word" not in shown


def test_variables_of_pip_are_known_where_uvs_are_not_set(place: Place) -> None:
    wheel(place.wheels, "lamp", "1.0")
    place.write({"requirements.txt": "lamp\n"})
    place.env["PIP_FIND_LINKS"] = place.env.pop("UV_FIND_LINKS")
    place.env["PIP_NO_INDEX"] = place.env.pop("UV_CONFIG_FILE") and "1"
    assert "lamp" in modules(place.get(), "/one")
    place.write({"requirements.txt": "six\n"})
    assert "was not found in the provided package locations" in place.problem().message


def test_what_builds_a_package_has_no_secret(place: Place, tmp_path: Path) -> None:
    source(place.root / "libs/oil", "oil", "KIND = 1\n", tmp_path / "log")
    place.write({"requirements.txt": "./libs/oil\n"})
    assert modules(place.get(), "/one")["oil"] == "KIND = 1\n"
    built = (tmp_path / "log").read_text()
    assert "PATH" in built and "MY_API_KEY" not in built and "OPENAI" not in built


def test_a_local_package_that_has_changed_is_built_again(place: Place, tmp_path: Path) -> None:
    source(place.root / "libs/oil", "oil", "KIND = 1\n", tmp_path / "log")
    place.write({"requirements.txt": "./libs/oil\n"})
    before = place.get()
    (place.root / "libs/oil/code.txt").write_text("KIND = 22\n")
    assert modules(place.get(), "/one")["oil"] == "KIND = 22\n"
    assert modules(before, "/one")["oil"] == "KIND = 1\n"


def test_a_build_that_fails_is_told_with_its_last_words(place: Place, tmp_path: Path) -> None:
    source(place.root / "libs/oil", "oil", "", tmp_path / "log")
    (place.root / "libs/oil/backend.py").write_text("print('so far')\nraise SystemExit('no compiler called gcc')\n")
    place.write({"requirements.txt": "lamp\n./libs/oil\n"})
    wheel(place.wheels, "lamp", "1.0")
    problem = place.problem()
    assert "Failed to build" in problem.message and "no compiler called gcc" in problem.message
    assert (problem.file, problem.line) == ("requirements.txt", 2) and "wheel" in problem.hint
    assert str(place.root) not in problem.message


def test_who_wants_no_build_gets_none(place: Place, tmp_path: Path) -> None:
    sdist(place.wheels, tmp_path / "oil", tmp_path / "log")
    place.write({"requirements.txt": "oil\n"})
    place.env["UV_NO_BUILD"] = "1"
    problem = place.problem()
    assert "oil" in problem.message and "wheel" in problem.hint and not (tmp_path / "log").exists()
    del place.env["UV_NO_BUILD"]
    assert "oil" in modules(place.get(), "/one")


def test_an_index_that_wants_credentials_says_so(place: Place) -> None:
    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    place.write({"requirements.txt": "lamp\n"})
    del place.env["UV_CONFIG_FILE"]
    with HTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place.env["UV_DEFAULT_INDEX"] = f"http://127.0.0.1:{server.server_port}/simple"
        assert "credentials" in place.problem().hint
        server.shutdown()


def copy(place: Place) -> Path:
    """The project's files as a deployment has them."""
    root = place.root / ".lampyr/deployments/abc"
    shutil.copytree(place.root, root, ignore=shutil.ignore_patterns(".lampyr"))
    return root


def test_a_copy_has_the_same_set_and_its_own_files(place: Place, tmp_path: Path) -> None:
    source(place.root / "libs/oil", "oil", "KIND = 1\n", tmp_path / "log")
    wheel(place.wheels, "lamp", "1.0")
    pyproject = PYPROJECT + '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    place.write({"pyproject.toml": pyproject, "src/shop/__init__.py": "", "requirements.txt": "-e ./libs/oil\nlamp\n"})
    place.write({"libs/oil/oil.py": "KIND = 'editable'\n"})
    backend = (place.root / "libs/oil/backend.py").read_text()
    editable = backend.replace('writestr("oil.py", open("code.txt").read())', 'writestr("oil.pth", os.getcwd())')
    (place.root / "libs/oil/backend.py").write_text(editable + "build_editable = build_wheel\n")
    there, root = place.get().packages["/one"], copy(place)
    here = place.look(root)
    assert not here.missing and not here.problems
    (site,) = {*there.paths} & {*here.packages["/one"].paths} - {*os.environ.get("PYTHONPATH", "").split(":")}
    assert "/.lampyr/packages/" in site
    assert there.paths[-2:] == (f"{place.root}/libs/oil", f"{place.root}/src")
    assert here.packages["/one"].paths[-2:] == (f"{root}/libs/oil", f"{root}/src")


def install(place: Place) -> subprocess.Popen[bytes]:
    code = f"""if True:
        import os
        from pathlib import Path
        from lampyr import config
        from lampyr.build.scan import scan
        from lampyr.build.supply import Supplier
        root = Path({str(place.root)!r})
        supply = Supplier(root / ".lampyr", os.environ, print).get(scan(root, config.load(root)))
        assert not supply.problems, supply.problems
    """
    return subprocess.Popen([sys.executable, "-c", code], env=place.env)


def test_who_is_killed_in_the_middle_leaves_nothing_that_counts(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    source(place.root / "libs/oil", "oil", "KIND = 1\n", log, seconds=1.0)
    place.write({"requirements.txt": "./libs/oil\n"})
    process = install(place)
    until(log.exists, "the build")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not place.sets() and [*(place.root / ".lampyr/packages").glob(".making-*")]
    assert place.look().missing
    assert "oil" in modules(place.get(), "/one")
    assert not [*(place.root / ".lampyr/packages").glob(".making-*")]


def test_two_at_once_install_it_once(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    source(place.root / "libs/oil", "oil", "KIND = 1\n", log, seconds=0.5)
    place.write({"requirements.txt": "./libs/oil\n"})
    processes = [install(place) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1 and len(place.sets()) == 1


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let a day and a bit pass."""
    now = time.time
    yield lambda: monkeypatch.setattr(time, "time", lambda: now() + 90_000)


def test_a_set_is_kept_as_long_as_something_uses_it(place: Place, old: Callable[[], None]) -> None:
    for version in ("1.0", "2.0", "3.0"):
        wheel(place.wheels, "lamp", version)
    for number, version in enumerate(("1.0", "2.0", "3.0")):
        place.write({"requirements.txt": f"lamp=={version}\n"})
        place.get()
        if number == 0:  # a deployment keeps what the project has given up
            copy = place.root / ".lampyr/deployments/abc"
            write(copy, {"requirements.txt": "lamp==1.0\n", "app/one/route.py": ROUTE})
            supplier = Supplier(place.root / ".lampyr", place.env, place.told.append)
            assert not supplier.look(scan(copy, config.load(copy), place.root)).missing
    assert len(place.sets()) == 3
    old()
    place.get()
    assert len(place.sets()) == 2, "what nothing uses goes after a day"
    assert not place.look().missing
    for file in sorted(copy.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    copy.rmdir()
    place.get()
    assert len(place.sets()) == 1

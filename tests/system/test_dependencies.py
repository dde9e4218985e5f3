"""Functions import what they ask for: installed by `start`, `dev`, `build` and `deploy`, over real servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from serving import Server, ended, until, write
from uv import find_uv_bin
from wheels import index, source, wheel

LAMP = "import lamp\nasync def GET(req):\n    return {'version': lamp.VERSION, 'file': lamp.__file__}\n"
OWN = '# /// script\n# dependencies = ["lamp==2.0"]\n# ///\n'
WORDS = """
    import asyncio

    runtime = "edge"

    async def GET(req):
        async def words():
            for _ in range(30):
                yield "word "
                await asyncio.sleep(0.1)
        return words()
"""


class Shop:
    """A folder with wheels, and servers on projects in it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.wheels, self.folder = folder / "project", folder / "wheels", folder
        self.env = index(self.wheels, folder / "cache")
        self.servers: list[Server] = []
        for version in ("1.0", "2.0"):
            wheel(self.wheels, "lamp", version)

    def serve(self, files: dict[str, str], command: str = "start") -> Server:
        write(self.root, files)
        self.servers.append(Server(self.root, command, env=self.env))
        return self.servers[-1]

    def lampyr(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lampyr", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **self.env})


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    for server in made.servers:
        server.stop()


def version(server: Server, path: str = "/one") -> str:
    answer = server.get(path)
    assert answer.status == 200, (answer.body, server.lines[-10:])
    found: str = answer.json()["version"]
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run; whose parent has died waits as a zombie for whoever collects those here."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("command", ["start", "dev"])
def test_two_versions_of_one_package_serve_side_by_side(shop: Shop, command: str) -> None:
    files = {"requirements.txt": "lamp==1.0\n", "app/one/route.py": LAMP}
    server = shop.serve({**files, "app/own/route.py": OWN + LAMP, "app/too/route.py": OWN + LAMP}, command)
    assert version(server) == "1.0" and version(server, "/own") == "2.0"
    assert server.get("/own").json() == server.get("/too").json(), "functions that ask for the same have one folder"
    assert f"{shop.root}/.lampyr/packages/" in server.get("/own").json()["file"]


def test_a_function_cannot_write_into_its_packages(shop: Shop) -> None:
    code = LAMP + "def POST():\n    open(lamp.__file__, 'a').write('1/0')\n"
    server = shop.serve({"requirements.txt": "lamp==1.0\n", "app/one/route.py": code})
    assert server.request("POST", "/one").status == 500
    server.log("Read-only file system|Permission denied")
    assert version(server) == "1.0"


def test_no_package_takes_the_place_of_lampyr_or_of_the_standard_library(shop: Shop) -> None:
    files = dict.fromkeys(("lampyr/__init__.py", "json/__init__.py", "ssl.py"), "raise SystemExit('not mine')\n")
    wheel(shop.wheels, "taker", "1.0", {**files, "taker.py": "WORD = 'taken'\n"})
    code = """
        import json, ssl, sys
        import lampyr, taker
        from lampyr import Response

        async def POST(req):
            form = await req.form()
            return Response.json({"word": form.get("word"), "lampyr": lampyr.__file__, "taker": taker.WORD})
    """
    server = shop.serve({"requirements.txt": "taker\nlampyr==0.0.1\n", "app/one/route.py": code})
    answer = server.request("POST", "/one", "word=x", {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status == 200, (answer.body, server.lines[-10:])
    found = answer.json()
    assert found["word"] == "x" and found["taker"] == "taken" and "/.lampyr/" not in found["lampyr"]


def test_build_names_packages_of_the_set_and_who_imports_them(shop: Shop) -> None:
    wheel(shop.wheels, "lantern", "1.0", {"lantern/__init__.py": "import lamp\n"}, requires=["lamp<2"])
    write(shop.root, {"requirements.txt": "lantern\n", "app/one/route.py": "import lantern\n" + LAMP})
    done = shop.lampyr("build", shop.root, "--json")
    (function,) = json.loads(done.stdout)["functions"]
    found = {one["name"]: (one["bytes"], one["imported_by"]) for one in function["packages"]}
    assert found["lantern"] == (12, "app/one/route.py") and found["lamp"][1] == "lantern", done.stdout
    assert function["import_ms"] > 0


def test_functions_with_other_sets_share_no_imported_package(shop: Shop) -> None:
    heavy = {"heavy/__init__.py": "import os\nfrom heavy.v import VERSION\n", "heavy/weights.txt": "x" * 1_100_000}
    for number in ("1.0", "2.0"):
        wheel(shop.wheels, "heavy", number, {**heavy, "heavy/v.py": f"VERSION = {number!r}\n"})
    code = "import heavy, os\nasync def GET(req):\n    return {'version': heavy.VERSION}\n"
    own = OWN.replace("lamp", "heavy") + code
    files = {f"app/{name}/route.py": code for name in ("one", "two")}
    files |= {f"app/{name}/route.py": own for name in ("three", "four")}
    server = shop.serve({**files, "requirements.txt": "heavy==1.0\n"})
    assert [version(server, f"/{name}") for name in ("one", "two", "three", "four")] == ["1.0", "1.0", "2.0", "2.0"]


def test_a_save_of_what_is_asked_for_is_seen_by_the_next_request(shop: Shop) -> None:
    server = shop.serve({"requirements.txt": "lamp==1.0\n", "app/one/route.py": LAMP}, "dev")
    assert version(server) == "1.0"
    server.write("requirements.txt", "lamp==2.0\n")
    assert version(server) == "2.0"
    server.write("requirements.txt", "lamp==1.0\n")
    assert version(server) == "1.0"
    server.write("app/one/route.py", OWN + LAMP)
    assert version(server) == "2.0"


def test_a_new_lock_is_seen_by_the_next_request(shop: Shop) -> None:
    def lock(version: str) -> None:
        pyproject = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        write(shop.root, {"pyproject.toml": pyproject + f'dependencies = ["lamp{version}"]\n'})
        uv = [find_uv_bin(), "lock", "--python", sys.executable]
        subprocess.run(uv, cwd=shop.root, env={**os.environ, **shop.env}, check=True)
        write(shop.root, {"pyproject.toml": pyproject + 'dependencies = ["lamp"]\n'})

    lock("==1.0")
    server = shop.serve({"app/one/route.py": LAMP}, "dev")
    assert version(server) == "1.0"
    lock("==2.0")
    assert version(server) == "2.0"


def test_what_is_installed_is_said_before_anything_is_fetched(shop: Shop) -> None:
    write(shop.root, {"app/one/route.py": LAMP, "requirements.txt": "lamp==1.0\n"})
    done = shop.lampyr("build", shop.root)
    assert done.stderr.startswith("lampyr: installing the packages of requirements.txt\n"), done.stderr
    assert shop.lampyr("build", shop.root).stderr.find("installing") < 0


def test_what_cannot_be_installed_in_dev_is_an_error_until_it_is_mended(shop: Shop) -> None:
    files = {
        "app/one/route.py": LAMP,
        "app/well/route.py": "# /// script\n# dependencies = []\n# ///\ndef GET(): return 'well'",
    }
    server = shop.serve({**files, "requirements.txt": "lamp==7\n"}, "dev")
    answer = server.get("/one")
    assert answer.status == 500 and b"requirements.txt:1" in answer.body and b"lamp==7" in answer.body
    server.log(r"error: requirements\.txt:1: .*lamp==7")
    assert server.get("/well").status == 200
    server.write("requirements.txt", "lamp\n")
    assert version(server) == "2.0"


def test_what_somebody_installs_himself_is_seen_by_the_next_request(shop: Shop) -> None:
    venv = shop.root / ".venv"
    uv, env = find_uv_bin(), {**os.environ, **shop.env}
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    server = shop.serve({"requirements.txt": "lamp==7\n", "app/one/route.py": LAMP}, "dev")
    assert server.get("/one").status == 500
    wheel(shop.wheels, "lamp", "7")
    assert server.get("/one").status == 500
    subprocess.run([uv, "pip", "install", "-q", "--python", venv / "bin/python", "lamp"], check=True, env=env)
    assert version(server) == "7"
    assert server.get("/one").json()["file"].startswith(str(venv))


def test_ctrl_c_ends_an_install_at_the_start(shop: Shop) -> None:
    log = shop.folder / "log"
    source(shop.root / "oil", "oil", "VERSION = 1\n", log, seconds=60)
    write(shop.root, {"app/one/route.py": LAMP, "requirements.txt": "./oil\n"})
    command = [sys.executable, "-m", "lampyr", "start", str(shop.root), "--port", "0"]
    process = subprocess.Popen(command, env={**os.environ, **shop.env}, stderr=subprocess.PIPE, text=True)
    until(log.exists, "the build")
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in said
    assert len(below) > 1
    until(lambda: not alive(below), "the end of all")


def test_an_install_in_dev_says_so_and_what_serves_goes_on(shop: Shop) -> None:
    server = shop.serve({"app/one/route.py": LAMP, "app/words/route.py": WORDS, "requirements.txt": "lamp==1.0"}, "dev")
    streams: list[bytes] = []
    thread = threading.Thread(target=lambda: streams.append(server.get("/words").body))
    thread.start()
    source(shop.root / "oil", "oil", "VERSION = 'slow'\n", shop.folder / "log", seconds=1.5)
    write(shop.root, {"app/one/route.py": LAMP.replace("lamp", "oil"), "requirements.txt": "./oil\n"})
    assert version(server) == "slow"
    server.log("lampyr: installing the packages of requirements.txt$")
    server.log("lampyr: Building oil.*, for requirements.txt$")
    thread.join()
    assert streams == [b"word " * 30]


def building(shop: Shop) -> Server:
    """`lampyr dev` in the midst of a build that takes a minute."""
    log = shop.folder / "log"
    source(shop.root / "oil", "oil", "VERSION = 1\n", log, seconds=60)
    server = shop.serve({"app/one/route.py": "def GET(): return 'well'\n"}, "dev")
    server.write("requirements.txt", "./oil\n")
    until(log.exists, "the build")
    return server


def test_ctrl_c_ends_an_install_in_dev(shop: Shop) -> None:
    server = building(shop)
    processes = server.processes()
    assert server.stop(signal.SIGINT) == 130
    assert all(map(ended, processes))


def test_an_install_ends_with_the_supervisor_however_that_ends(shop: Shop) -> None:
    server = building(shop)
    processes = server.processes()
    assert len([one for one in processes if "backend" in " ".join(one.cmdline()) or "uv" in one.name()]) > 1
    server.process.kill()
    until(lambda: not alive(processes), "the end of all")


def test_another_save_takes_the_place_of_an_install(shop: Shop) -> None:
    log = shop.folder / "log"
    source(shop.root / "oil", "oil", "VERSION = 1\n", log, seconds=60)
    server = shop.serve({"app/one/route.py": LAMP, "requirements.txt": "lamp==1.0\n"}, "dev")
    server.write("requirements.txt", "./oil\nlamp==1.0\n")
    until(log.exists, "the build")
    server.write("requirements.txt", "lamp==2.0\n")
    assert version(server) == "2.0"


def test_a_start_without_the_packages_is_refused(shop: Shop) -> None:
    write(shop.root, {"requirements.txt": "lamp\nnone-such\n", "app/one/route.py": LAMP})
    done = shop.lampyr("start", shop.root, "--port", "0")
    assert done.returncode == 1 and not done.stdout
    assert re.search(r"error: requirements\.txt:2: .*none-such.*\nhint: ", done.stderr), done.stderr
    assert "cannot be served: 1 error" in done.stderr


def test_a_deployment_keeps_its_packages_and_a_broken_one_changes_nothing(shop: Shop) -> None:
    server = shop.serve({"requirements.txt": "lamp==1.0\n", "app/one/route.py": LAMP})
    assert version(server) == "1.0"
    server.write("requirements.txt", "lamp==7\n")
    done = shop.lampyr("deploy", shop.root, "--json")
    assert done.returncode == 1 and "requirements.txt:1" in done.stderr and "goes on serving" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "BUILD"
    assert version(server) == "1.0"
    server.write("requirements.txt", "lamp==2.0\n")
    assert shop.lampyr("deploy", shop.root).returncode == 0
    assert version(server) == "2.0"
    assert shop.lampyr("rollback", shop.root).returncode == 0
    assert version(server) == "1.0"
    server.stop()
    again = shop.serve({})
    assert version(again) == "1.0" and "the project's files are those of" in "\n".join(again.lines)


def test_a_rollback_installs_what_the_environment_has_lost(shop: Shop) -> None:
    venv, uv, env = shop.root / ".venv", find_uv_bin(), {**os.environ, **shop.env}
    python = ("--python", venv / "bin/python")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    subprocess.run([uv, "pip", "install", "-q", *python, "lamp==1.0"], check=True, env=env)
    server = shop.serve({"requirements.txt": "lamp==1.0\n", "app/one/route.py": LAMP})
    assert server.get("/one").json()["file"].startswith(str(venv))
    server.write("requirements.txt", "lamp==2.0\n")
    assert shop.lampyr("deploy", shop.root).returncode == 0
    subprocess.run([uv, "pip", "uninstall", "-q", *python, "lamp"], check=True, env=env)
    done = shop.lampyr("rollback", shop.root)
    assert done.returncode == 0, done.stderr
    assert version(server) == "1.0" and "/.lampyr/packages/" in server.get("/one").json()["file"]


def test_packages_from_the_index_of_this_machine(shop: Shop) -> None:
    """The real one, where there is a network."""
    shop.env = {}
    six = "import six\nasync def GET(req):\n    return {'version': six.__version__}\n"
    write(shop.root, {"requirements.txt": "six==1.16.0\n", "app/one/route.py": six})
    done = shop.lampyr("build", shop.root, "--json")
    if "is the index reachable?" in done.stdout:
        pytest.skip("no index can be reached")
    assert version(shop.serve({})) == "1.16.0"

"""Scanning a project: which functions it has, and every way it can be wrong."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lampyr import config
from lampyr.build.scan import scan
from lampyr.errors import ProjectError
from lampyr.runtime import kernel
from lampyr.types import Function, Problem, Project, Settings

GET = "def GET(): return 'hello'\n"
# For a thread that is to find what others may read, and not all that root may.
NO_POWERS = kernel.drop_capabilities if sys.platform == "linux" else None


def project(root: Path, files: Mapping[str, str | bytes]) -> Project:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return scan(root, config.load(root))


def only(root: Path, source: str | bytes, toml: str = "") -> tuple[Function, Project]:
    found = project(root, {"app/x/route.py": source, "lampyr.toml": toml})
    assert len(found.functions) == 1
    return found.functions[0], found


def told(problems: tuple[Problem, ...]) -> str:
    return "\n".join(f"{problem.file}:{problem.line}: {problem.message} [{problem.hint}]" for problem in problems)


# What is a function


def test_only_route_py_is_a_function(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        {
            "app/route.py": GET,
            "app/api/chat/route.py": GET,
            "app/api/chat/prompt.py": GET,
            "app/api/chat/routes.py": GET,
            "app/api/chat/Route.py": GET,
            "app/robots.txt/route.py": GET,
            "app/.well-known/x/route.py": GET,
            "app/route.py.d/route.py/route.py": GET,
            "app/_lib/route.py": "1 +",
            "app/(group)/_inner/deep/route.py": "1 +",
            "app/%5Fpublic/[id]/route.py": GET,
            "app/(group)/café/[[...all]]/route.py": GET,
            "app/node_modules/x/route.py": "1 +",
            "app/venv/pyvenv.cfg": "",
            "app/venv/lib/route.py": "1 +",
            "lib/route.py": "1 +",
        },
    )
    assert {function.route for function in found.functions} == {
        "/",
        "/api/chat",
        "/robots.txt",
        "/.well-known/x",
        "/route.py.d/route.py",
        "/_public/[id]",
        "/café/[[...all]]",
    }
    assert (found.errors, found.warnings) == ((), ())
    assert found.app == tmp_path / "app" and found.public is None


def test_a_function_knows_its_folders_and_its_file(tmp_path: Path) -> None:
    (function,) = project(tmp_path, {"src/app/(g)/%5Fx/[id]/route.py": GET}).functions
    assert function.parts == ("(g)", "%5Fx", "[id]")
    assert function.file == tmp_path / "src/app/(g)/%5Fx/[id]/route.py"


def test_a_folder_without_app_is_no_project_and_the_error_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        scan(tmp_path, config.load(tmp_path))
    assert str(tmp_path / "app") in caught.value.message and str(tmp_path / "src/app") in caught.value.message
    for other in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(ProjectError, match="is not a folder"):
            scan(other, config.load(tmp_path))


def test_app_without_a_route_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    found = scan(tmp_path, config.load(tmp_path))
    assert not found.errors and "no functions" in told(found.warnings)


@pytest.mark.parametrize(
    ("file", "text", "place", "line"),
    [
        ("app/main.py", "app = FastAPI()", "app", "from app.main import app"),
        ("app/__init__.py", "api: FastAPI = fastapi.FastAPI(title='x')", "app", "from app import api as app"),
        ("src/app/web/main.py", "app = Starlette(\n)", "src/app", "from app.web.main import app"),
        ("main.py", "app = FastAPI()", "app", "from main import app"),
        ("app.py", "application = Litestar([])", "app", "from app import application as app"),
    ],
)
def test_an_application_that_no_route_file_exports_is_told_how(
    tmp_path: Path, file: str, text: str, place: str, line: str
) -> None:
    """Who comes from uvicorn is one line away."""
    files = {f"{place}/routers/items.py": "", file: f"from fastapi import FastAPI\n{text}\n"}
    hint = f"make {place}/[[...path]]/route.py with this line: {line}"
    found = project(tmp_path, files)
    [warning] = found.warnings
    assert (warning.file, warning.line) == (file, 2) and "application: no route.py exports it" in warning.message
    assert warning.hint.endswith(hint)
    if "/" not in file:
        shutil.rmtree(tmp_path / "app")
        with pytest.raises(ProjectError, match="is not a project") as caught:
            scan(tmp_path, config.load(tmp_path))
        assert caught.value.hint.endswith(hint)
    assert not project(tmp_path, {f"{place}/[[...path]]/route.py": f"{line}\n"}).warnings


@pytest.mark.parametrize(
    "text", ["def make():\n    app = FastAPI()", "# app = FastAPI()", "app = MyFastAPI()", "x = 1"]
)
def test_what_is_no_application_is_not_taken_for_one(tmp_path: Path, text: str) -> None:
    [warning] = project(tmp_path, {"app/main.py": text}).warnings
    assert "no functions" in warning.message


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("app/api/hello.py", "app/api/hello/route.py"),
        ("app/api/x/routes.py", "app/api/x/route.py"),
        ("app/Route.py", "app/route.py"),
    ],
)
def test_a_handler_in_a_file_of_another_name_is_a_warning(tmp_path: Path, file: str, place: str) -> None:
    found = project(tmp_path, {"app/y/route.py": GET, file: "async def POST(): ..."})
    assert not found.errors and len(found.functions) == 1
    assert told(found.warnings).startswith(f"{file}:None: nobody can call its POST: only a file named route.py is a")
    assert f"[move it to {place}, or" in told(found.warnings)


def test_files_beside_a_route_and_without_handlers_are_no_warning(tmp_path: Path) -> None:
    files = {
        "app/y/route.py": "from .other import GET",
        "app/y/other.py": GET,
        "app/_lib/crud.py": GET,
        "app/api/client.py": "class Client:\n    def GET(self): ...",
    }
    assert not project(tmp_path, files).warnings


def test_static_files_where_lampyrs_own_are_served_are_a_warning_that_names_them(tmp_path: Path) -> None:
    found = project(tmp_path, {"app/a/route.py": GET, "public/_lampyr/env.js": "", "public/_lampyr/x/y.css": ""})
    [warning] = found.warnings
    assert not found.errors and warning.file == "public/_lampyr"
    assert "never served" in warning.message and "public/_lampyr/env.js, public/_lampyr/x/y.css" in warning.message
    found = project(tmp_path, {f"public/_lampyr/{number}.txt": "" for number in range(9)})
    assert "and 6 more" in found.warnings[0].message


def test_app_and_src_app_at_once_is_an_error(tmp_path: Path) -> None:
    found = project(tmp_path, {"app/a/route.py": GET, "src/app/b/route.py": GET})
    assert "both app/ and src/app/" in told(found.errors)


# Conflicts: rows of files and what the error must name

A, B = "app/(a)/{}/route.py", "app/(b)/{}/route.py"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["app/(a)/x/route.py", "app/(b)/x/route.py"], ["app/(a)/x/route.py", "app/(b)/x/route.py", "/x"]),
        (["app/x/route.py", "app/(b)/x/route.py"], ["app/x/route.py", "app/(b)/x/route.py"]),
        (["app/route.py", "app/(b)/route.py"], ["app/route.py", "app/(b)/route.py", "path /"]),
        (["app/(a)/[id]/route.py", "app/(b)/[id]/route.py"], ["app/(a)/[id]/route.py", "app/(b)/[id]/route.py"]),
        (["app/%5Fx/route.py", "app/%5fx/route.py"], ["app/%5Fx/route.py", "app/%5fx/route.py", "/_x"]),
        (["app/[id]/route.py", "app/[slug]/route.py"], ["app/[id]/route.py", "app/[slug]/route.py", '"id"', '"slug"']),
        (["app/[id]/a/route.py", "app/(g)/[slug]/b/route.py"], ["app/[id]/a/route.py", "app/(g)/[slug]/b/route.py"]),
        (["app/[...a]/route.py", "app/[...b]/route.py"], ["app/[...a]/route.py", "app/[...b]/route.py"]),
        (["app/[...a]/route.py", "app/[[...b]]/route.py"], ["app/[...a]/route.py", "app/[[...b]]/route.py"]),
        (["app/[...all]/x/route.py"], ["app/[...all]/x/route.py", "[...all] is not the last"]),
        (["app/[[...all]]/[id]/route.py"], ["[[...all]] is not the last"]),
        (["app/[id]/x/[id]/route.py"], ['"id" is used twice']),
        (["app/[id]/[...id]/route.py"], ['"id" is used twice']),
        (["app/[user-id]/[userid]/route.py"], ['"user-id" and "userid" differ only']),
        (["app/[a.b]/x/[[...ab]]/route.py"], ['"a.b" and "ab" differ only']),
        (["app/[id/route.py"], ["app/[id/route.py", "'[id'", "brackets"]),
        (["app/x/[[id]]/y/route.py"], ["'[[id]]'", "[[...name]]"]),
        (["app/[]/route.py"], ["no name"]),
        (["app/(group/route.py"], ["'(group'"]),
        (["app/%5Flampyr/x/route.py"], ["/_lampyr"]),
        (["app/x/route.py", "public/x"], ["public/x", "app/x/route.py"]),
        (["app/(g)/robots.txt/route.py", "public/robots.txt"], ["public/robots.txt", "app/(g)/robots.txt/route.py"]),
        (["app/a b/é/route.py", "public/a b/é"], ["public/a b/é", "app/a b/é/route.py"]),
        (["app/route.py", "public/index.html"], ["public/index.html", "app/route.py"]),
    ],
)
def test_a_conflict_is_an_error_that_names_the_files(tmp_path: Path, files: list[str], names: list[str]) -> None:
    found = project(tmp_path, dict.fromkeys(files, GET))
    assert len(found.errors) == 1
    for name in names:
        assert name in found.errors[0].message or name == found.errors[0].file
    assert all(function.problem == found.errors[0] for function in found.functions)


@pytest.mark.parametrize(
    "files",
    [
        ["app/d/route.py", "app/d/[[...all]]/route.py"],
        ["app/d/[...all]/route.py", "app/d/[[...all]]/route.py"],
        ["app/[id]/route.py", "app/[...all]/route.py"],
        ["app/a/[id]/route.py", "app/b/[slug]/route.py"],
        ["app/[id]/a/[x]/route.py", "app/[id]/b/[y]/route.py"],
        ["app/d/static/route.py", "app/d/[id]/sub/route.py"],
        ["app/[user_id]/[userid]/route.py"],
        ["app/x/route.py", "public/x/y.txt"],
        ["app/x/route.py", "public/X"],
        ["app/[id]/route.py", "public/id", "public/[id]"],
        ["app/docs/[[...all]]/route.py", "public/docs"],
        ["app/.hidden/route.py", "public/.hidden"],
    ],
)
def test_what_ranks_differently_may_stand_together(tmp_path: Path, files: list[str]) -> None:
    assert project(tmp_path, dict.fromkeys(files, GET)).errors == ()


def test_a_conflict_of_three_files_is_one_error(tmp_path: Path) -> None:
    files = [f"app/({group})/x/route.py" for group in "abc"]
    (error,) = project(tmp_path, dict.fromkeys(files, GET)).errors
    assert all(file in error.message for file in files)


# Handlers


@pytest.mark.parametrize(
    ("source", "methods"),
    [
        ("def GET(): ...", ("GET",)),
        ("async def POST(req): ...", ("POST",)),
        ("def GET(req, ctx): ...\nPOST = GET", ("GET", "POST")),
        ("DELETE = PUT = lambda req: None", ("PUT", "DELETE")),
        ("GET: Handler = make()", ("GET",)),
        ("from lib.handlers import GET", ("GET",)),
        ("from lib.handlers import chat as POST, GET", ("GET", "POST")),
        ("import x\nOPTIONS = x.options\nHEAD = x.head\nPATCH = x['patch']", ("HEAD", "PATCH", "OPTIONS")),
        ("try:\n  import fast\n  def GET(): ...\nexcept ImportError:\n  def GET(): ...", ("GET",)),
        ("if x:\n  def GET(): ...\nelse:\n  def POST(): ...", ("GET", "POST")),
        ("GET, POST = pair()", ("GET", "POST")),
        ("@limit\ndef GET(req, ctx, db): ...", ("GET",)),
        ("def GET(req, ctx, extra=1, *more, key=2, **rest): ...", ("GET",)),
        ("class T:\n  def GET(self): ...\ndef POST():\n  def PUT(): ...", ("POST",)),
    ],
)
def test_handlers_are(tmp_path: Path, source: str, methods: tuple[str, ...]) -> None:
    function, found = only(tmp_path, source)
    assert (function.methods, function.asgi, found.errors) == (methods, False, ())


@pytest.mark.parametrize(
    "source",
    [
        "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef get(): ...",
        "from .main import app",
        "from .main import create\napp: object = create()",
        "async def app(scope, receive, send): ...",
    ],
)
def test_an_asgi_application_is_an_export_named_app(tmp_path: Path, source: str) -> None:
    function, found = only(tmp_path, source)
    assert (function.methods, function.asgi, found.errors) == ((), True, ())


def test_importing_the_package_app_exports_no_application(tmp_path: Path) -> None:
    function, found = only(tmp_path, "import app.lib\ndef GET(): ...")
    assert not function.asgi and not found.errors


@pytest.mark.parametrize(
    ("folder", "source", "given"),
    [
        ("[id]", "async def PUT(id): ...", "request"),
        ("[id]/x", "def PUT(\n  req, id: int = 0\n): ...", "context"),
        ("[[...id]]", "def PUT(request, id): ...", "context"),
    ],
)
def test_an_argument_that_is_called_like_a_parameter_of_the_url_is_a_warning(
    tmp_path: Path, folder: str, source: str, given: str
) -> None:
    """Other frameworks would hand the parameter over there."""
    found = project(tmp_path, {f"app/{folder}/route.py": source})
    [warning] = found.warnings
    assert not found.errors and warning.line == 1 + source[: source.index("id")].count("\n")
    assert f'PUT is given the {given} as "id"' in warning.message and warning.hint.endswith('req.params["id"]')


@pytest.mark.parametrize("source", ["def GET(req, ctx): ...", "def GET(request): id = 1", "@given\ndef GET(id): ..."])
def test_other_arguments_are_no_warning(tmp_path: Path, source: str) -> None:
    files = {f"app/{name}/route.py": source for name in ("a/[id]", "b/[request]", "c/[...ctx]", "d/(id)")}
    warnings = project(tmp_path, files).warnings
    assert not warnings, told(warnings)


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("\nGET = 5", 2, "GET is a value"),
        ("GET = None", 1, "GET is a value"),
        ("GET = 'x'\ndef POST(): ...", 1, "GET is a value"),
        ("GET = {'a': f()}", 1, "GET is a value"),
        ("GET = f'{x}'", 1, "GET is a value"),
        ("app = 'main:app'", 1, "app is a value"),
        ("def GET(): ...\n\napp = make()", 3, "both app and GET"),
        ("def GET(a, b, c): ...", 1, "GET takes more"),
        ("def GET(req, *, db): ...", 1, "GET takes more"),
        ("def GET(:\n pass", 1, "syntax error"),
        (b"\xef\xbb\xbfGET = 5", 1, "GET is a value"),
        (b"# coding: latin-1\n# caf\xe9\nGET = 5", 3, "GET is a value"),
        ("x = 1\n  y = 2", 2, "unexpected indent"),
        ("x = 1\n\ndef GET(): return '", 3, "unterminated"),
        (b"x = 1\n# caf\xe9\n", 2, "UTF-8"),
        (b"\xff", 1, "invalid or missing encoding"),
        (b"# coding: klingon\n", 1, "unknown encoding"),
        (b"x = 1\ny = 2\0\n", 2, "NUL"),
        ("x = " + "(" * 5000, 1, ""),
        ("x = " + "-" * 100_000 + "1", 1, ""),
    ],
)
def test_a_broken_route_file_is_an_error_with_its_line(
    tmp_path: Path, source: str | bytes, line: int, message: str
) -> None:
    function, found = only(tmp_path, source)
    (error,) = found.errors
    assert (error.file, error.line) == ("app/x/route.py", line) and message in error.message
    assert error.hint and function.problem == error


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "no handler"),
        ("", "no handler"),
        ("from .handlers import *", "import them by name"),
        ("def get(req): ...", 'did you mean "GET"'),
        ("async def Post(req): ...", 'did you mean "POST"'),
        ("def GET(): ...\ndef default(req): ...", "default is not used"),
        ("def handler(event, context): ...", "handler is not used"),
        ("handler = make()", "handler is not used"),
        ("def GET(): ...\nmax_durations = 5", 'did you mean "max_duration"'),
        ("def GET(): ...\nruntme = 'edge'", 'did you mean "runtime"'),
        ("def GET(): ...\nmaxDuration = 5", 'did you mean "max_duration"'),
        ("def GET(): ...\nfirst_byte_timeout = 5", "first_byte_timeout has no effect"),
    ],
)
def test_a_name_that_was_probably_meant_for_lampyr_is_a_warning(tmp_path: Path, source: str, message: str) -> None:
    _, found = only(tmp_path, source)
    assert not found.errors and message in told(found.warnings)


@pytest.mark.parametrize(
    "source",
    [
        "def handler(req): ...\nGET = handler",
        "from httpx2 import get\ndef GET(): return get('http://x')",
        "def get(url): ...\ndef GET(): return get('x')",
        "def GET(): ...\ntimeout = 5\nmodel = 'x'\nregional = fetch()\nMAX = 1",
        "def GET(): ...\nregion = 'eu'\nprint(region)",
        "r'''\\d'''\nx = '\\d'\ndef GET(): ...",
    ],
)
def test_the_users_own_names_are_left_alone(tmp_path: Path, source: str) -> None:
    _, found = only(tmp_path, source)
    assert (found.errors, found.warnings) == ((), ())


def test_all_errors_of_all_files_are_reported_and_the_functions_listed(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        {
            "app/a/route.py": "GET = 5\nruntime = 'edgy'\nmemory = 'much'",
            "app/b/route.py": "def GET(:",
            "app/c/route.py": GET,
            "app/[d/route.py": GET,
        },
    )
    assert [(error.file, error.line) for error in found.errors] == [
        ("app/[d/route.py", None),
        ("app/a/route.py", 1),
        ("app/a/route.py", 2),
        ("app/a/route.py", 3),
        ("app/b/route.py", 1),
    ]
    broken = {function.route: function.problem is not None for function in found.functions}
    assert broken == {"/a": True, "/b": True, "/c": False, "/[d": True}


# Settings


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('runtime = "edge"', "runtime", "edge"),
        ('runtime: str = "edge"', "runtime", "edge"),
        ("max_duration = 900", "max_duration", 900.0),
        ("max_duration = 1.5", "max_duration", 1.5),
        ("max_duration = None", "max_duration", None),
        ("concurrency = 7", "concurrency", 7),
        ("max_body = 4_500_000", "max_body", 4_500_000),
        ("max_body = 0", "max_body", 0),
        ("x = memory = 256", "memory", 256),
        ("memory = 128\nmemory = 256", "memory", 256),
        ('secrets = ["A", "B"]', "secrets", ("A", "B")),
        ('secrets = ("A",)', "secrets", ("A",)),
        ("secrets = []", "secrets", ()),
        ('network = "broker"', "network", "broker"),
        ('rate_limit = "60/minute"', "rate_limit", "60/minute"),
        ('rate_limit = "5 / second"', "rate_limit", "5/second"),
        ('rate_limit = "none"', "rate_limit", "none"),
        ('budget = "1000 invocations/day"', "budget", "1000 invocations/day"),
        ('budget = "2.50 USD/month"', "budget", "2.50 USD/month"),
        ("budget = None", "budget", None),
        ('on_disconnect = "continue"', "on_disconnect", "continue"),
        ('regions = "all"', "regions", None),
        ('regions = ["fra", "iad-1"]', "regions", ("fra", "iad-1")),
        ("min_instances = 1\nmax_instances = 1", "min_instances", 1),
        ("idle_timeout = 0.5", "idle_timeout", 0.5),
        ("import secrets", "secrets", None),
        ("from x import y as z, memory_of", "memory", 512),
        ("def budget(): ...", "budget", None),
    ],
)
def test_a_setting_is_read(tmp_path: Path, line: str, name: str, value: object) -> None:
    function, found = only(tmp_path, f"{line}\n{GET}")
    assert found.errors == () and getattr(function.settings, name) == value


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ('runtime = "edgy"', '"standard" or "edge"'),
        ("runtime = None", '"standard" or "edge"'),
        ('runtime = "ed" + "ge"', '"standard" or "edge"'),
        ("runtime = RUNTIME", '"standard" or "edge"'),
        ("runtime = f'edge'", '"standard" or "edge"'),
        ("from conf import runtime", '"standard" or "edge"'),
        ("if x: runtime = 'edge'", '"standard" or "edge"'),
        ("runtime, memory = 'edge', 5", '"standard" or "edge"'),
        ("max_duration = 0", "1 to 900"),
        ("max_duration = 0.5", "1 to 900"),
        ("max_duration = 901", "1 to 900"),
        ("max_duration = -5", "1 to 900"),
        ("max_duration = 1e999", "1 to 900"),
        ("max_duration = True", "1 to 900"),
        ('max_duration = "10"', "1 to 900"),
        ("max_duration = 60 * 5", "1 to 900"),
        ("max_duration = 1j", "1 to 900"),
        ("max_duration += 5", "1 to 900"),
        ("concurrency = 1.0", "whole number"),
        ("concurrency = True", "whole number"),
        ("concurrency = 0", "whole number"),
        ("min_instances = -1", "whole number"),
        ("max_instances = 0", "whole number"),
        ("memory = '512'", "MiB"),
        ("memory = 1", "MiB"),
        ("max_body = -1", "bytes"),
        ('secrets = "OPENAI_API_KEY"', "list of names"),
        ("secrets = [1]", "list of names"),
        ('secrets = {"A": 1}', "list of names"),
        ('secrets = ["sk-proj-123"]', "list of names"),
        ('network = "closed"', '"open" or "broker"'),
        ("rate_limit = 60", "60/minute"),
        ('rate_limit = "60/fortnight"', "60/minute"),
        ('rate_limit = "0/minute"', "60/minute"),
        ('rate_limit = "sixty/minute"', "60/minute"),
        ('budget = "5 EUR/day"', "USD"),
        ('budget = "USD/day"', "USD"),
        ('budget = "0 USD/day"', "USD"),
        ("budget = 5", "USD"),
        ('on_disconnect = "stop"', '"cancel" or "continue"'),
        ("regions = []", "PoPs"),
        ('regions = "fra"', "PoPs"),
        ("regions = [1]", "PoPs"),
    ],
)
def test_a_setting_that_is_not_allowed_is_an_error(tmp_path: Path, line: str, allowed: str) -> None:
    function, found = only(tmp_path, f"# first\n{line}\n{GET}")
    error = found.errors[0]
    name = line.split("import ")[-1].removeprefix("if x: ").split()[0].rstrip(",")
    assert (error.file, error.line) == ("app/x/route.py", 2)
    assert error.message.startswith(name) and allowed in error.message
    assert function.problem == error and isinstance(function.settings, Settings)


def test_a_credential_in_the_place_of_its_name_is_not_repeated(tmp_path: Path) -> None:
    _, found = only(tmp_path, 'secrets = ["sk-proj-123"]\n' + GET)
    assert "sk-proj" not in told(found.errors)


def test_more_instances_at_least_than_at_most(tmp_path: Path) -> None:
    _, found = only(tmp_path, "max_instances = 2\n\nmin_instances = 3\n" + GET)
    assert found.errors[0].line == 3 and "max_instances = 2" in found.errors[0].message


def test_the_runtimes_have_their_own_defaults(tmp_path: Path) -> None:
    standard, _ = only(tmp_path / "a", GET)
    edge, _ = only(tmp_path / "b", "runtime = 'edge'\n" + GET)
    assert standard.settings == Settings()
    assert edge.settings == Settings(runtime="edge", max_duration=None, first_byte_timeout=25, concurrency=100)


def test_the_route_file_wins_over_its_section_and_that_over_all_functions(tmp_path: Path) -> None:
    toml = """
        [functions]
        memory = 100
        max_body = 100
        idle_timeout = 100
        runtime = "edge"
        max_duration = 100
        [functions."/x"]
        memory = 200
        max_body = 200
        max_duration = "none"
    """
    function, found = only(tmp_path, f"memory = 300\n{GET}", toml)
    settings = function.settings
    assert not found.errors
    assert (settings.memory, settings.max_body, settings.idle_timeout) == (300, 200, 100)
    assert (settings.runtime, settings.max_duration, settings.concurrency) == ("edge", None, 100)


def test_the_runtime_of_the_project_can_be_taken_back_with_its_defaults(tmp_path: Path) -> None:
    toml = '[functions]\nruntime = "edge"\nfirst_byte_timeout = 5'
    function, _ = only(tmp_path, f"runtime = 'standard'\n{GET}", toml)
    assert function.settings == Settings()


def test_settings_for_a_function_that_does_not_exist_are_an_error(tmp_path: Path) -> None:
    _, found = only(tmp_path, GET, '[functions]\nmemory = 64\n\n[functions."/xx"]\nmemory = 64\n')
    (error,) = found.errors
    assert (error.file, error.line) == ("lampyr.toml", 4) and '"/xx"' in error.message


# PEP 723


def test_a_route_file_may_name_its_own_dependencies(tmp_path: Path) -> None:
    source = '"""x"""\n# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "numpy",\n# ]\n# ///\n' + GET
    function, found = only(tmp_path / "a", source)
    assert function.metadata and function.metadata[:3] == (("numpy",), ">=3.11", 2) and not found.errors
    assert only(tmp_path / "b", GET)[0].metadata is None
    empty = only(tmp_path / "c", "# /// script\n# dependencies = []\n# ///\n" + GET)[0].metadata
    assert empty and empty.dependencies == ()


# Things on disk that are not what they seem


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "app/a/b").mkdir(parents=True)
    (tmp_path / "app/a/route.py").write_text(GET)
    (tmp_path / "app/alias").symlink_to("a")
    (tmp_path / "app/a/b/up").symlink_to("../..")
    (tmp_path / "app/self").symlink_to("self")
    (tmp_path / "app/a/b/route.py").symlink_to("route.py")
    for number in range(12):
        (tmp_path / f"app/a/b/link{number}").symlink_to(tmp_path / "app/a")
    found = scan(tmp_path, config.load(tmp_path))
    assert {function.route for function in found.functions} == {"/a", "/a/b", "/alias", "/alias/b"}
    assert {error.file for error in found.errors} == {"app/a/b/route.py", "app/alias/b/route.py"}
    assert "app/a/b/up" in told(found.warnings)


def test_a_route_file_that_is_a_pipe_or_missing_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "app/x").mkdir(parents=True)
    (tmp_path / "app/y").mkdir()
    os.mkfifo(tmp_path / "app/x/route.py")
    (tmp_path / "app/y/route.py").symlink_to("nowhere")
    found = scan(tmp_path, config.load(tmp_path))
    assert [error.message for error in found.errors] == ["not a regular file"] * 2


def test_a_folder_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/app/caf\xe9"
    os.makedirs(folder)
    with open(folder + b"/route.py", "w") as file:
        file.write(GET)
    found = scan(tmp_path, config.load(tmp_path))
    told(found.errors).encode()
    assert "UTF-8" in found.errors[0].message


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    found = project(tmp_path, {"app/x/route.py": GET, "app/y/route.py": GET})
    (tmp_path / "app/x/route.py").chmod(0)
    (tmp_path / "app/y").chmod(0)
    try:
        with ThreadPoolExecutor(1, initializer=NO_POWERS) as powerless:
            found = powerless.submit(scan, tmp_path, config.load(tmp_path)).result()
    finally:
        (tmp_path / "app/y").chmod(0o755)
    assert {error.file for error in found.errors} == {"app/x/route.py", "app/y"}

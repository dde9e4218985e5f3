"""What the log says of functions that fail: how a process ended, where a handler stood, and what to do about it."""

from __future__ import annotations

import re

import pytest
from serving import Serve, Server

ENDINGS = {
    "leaves": ("import os\ndef GET(): os._exit(4)\n", "exited with status 4", "os._exit"),
    "crashes": ("import ctypes\nasync def GET(): ctypes.string_at(0)\n", "was killed by SIGSEGV", "compiled code"),
    "killed": ("import os\nasync def GET(): os.kill(os.getpid(), 9)\n", "was killed by SIGKILL", "killed it"),
    "edge": ('import os\nruntime = "edge"\nasync def GET(): os._exit(7)\n', "exited with status 7", "os._exit"),
}


@pytest.fixture
def dying(serve: Serve) -> Server:
    return serve({f"app/{name}/route.py": text for name, (text, _, _) in ENDINGS.items()}, command="dev")


@pytest.mark.parametrize("name", ENDINGS)
def test_the_log_says_how_a_process_ended(dying: Server, name: str) -> None:
    answer = dying.get(f"/{name}")
    assert answer.error == "FUNCTION_CRASHED"
    _, how, hint = ENDINGS[name]
    id = answer.headers["x-lampyr-id"]
    dying.log(rf"^lampyr: /{name} {id}: the process {re.escape(how)}\nhint: .*{re.escape(hint)}")
    if name == "crashes":
        dying.log(rf'{id} \|   File ".*app/crashes/route.py", line 2 in GET')


def test_a_process_that_dies_while_it_serves_nobody_is_told_of(serve: Serve) -> None:
    hook = "import os\nfrom lampyr import after_restore\nafter_restore(lambda: os._exit(5))\ndef GET(): ...\n"
    server = serve({"app/x/route.py": hook}, command="dev")
    assert server.get("/x").error == "FUNCTION_CRASHED"
    server.log(r"^lampyr: error: /x: a process that served no request exited with status 5$")


def told(server: Server, answer_id: str, last: str) -> str:
    """Everything in the log under one id, once `last` is there."""
    server.log(rf"{answer_id} \| {last}")
    server.log(rf"(GET|POST|PUT|PATCH) .* {answer_id}$")
    return "\n".join(line for line in server.lines if f"{answer_id} |" in line)


WAITS = """
    import asyncio, time
    max_duration = 1
    def helper(): time.sleep(5)
    async def deep(): await asyncio.sleep(9)
    def GET(): helper()
    async def POST(): await deep()
    async def PUT(): await asyncio.to_thread(helper)
    async def PATCH(): helper()
"""


def test_the_stack_at_a_deadline_is_the_users_and_told_once(serve: Serve) -> None:
    server = serve({"app/x/route.py": WAITS}, command="dev")
    for method, frames in {"GET": ["GET", "helper"], "POST": ["POST", "deep"], "PUT": ["PUT"]}.items():
        answer = server.request(method, "/x")
        assert answer.error == "FUNCTION_INVOCATION_TIMEOUT"
        text = told(server, answer.headers["x-lampyr-id"], rf".*in {frames[-1]}$")
        assert re.findall(r'File "(.*)", line \d+,? in (\w+)', text) == [
            (str(server.root / "app/x/route.py"), name) for name in frames
        ]


RAISES = """
    import asyncio, os, sys, time, traceback
    max_duration = 1
    def GET(): raise ValueError("in GET")
    def POST():
        traceback.print_stack()
        print("my file:", __file__)
    async def PATCH(): time.sleep(5)
"""


def test_the_files_of_stacks_are_those_of_the_project_not_of_its_copy(serve: Serve) -> None:
    server = serve({"app/x/route.py": RAISES}, command="start")
    own = rf'File "{server.root}/app/x/route\.py", line \d+'
    for method, last in {"GET": "ValueError: in GET", "POST": "my file: .*", "PATCH": ".* in PATCH"}.items():
        text = told(server, server.request(method, "/x").headers["x-lampyr-id"], f"{last}$")
        assert re.search(rf"{own},? in {method}", text), text
        assert ".lampyr/deployments" not in re.sub("my file:.*", "", text)
    assert f"my file: {server.live}/app/x/route.py" in "\n".join(server.lines), "what it prints stays as it is"


def test_a_handler_that_blocks_the_process_is_told_by_faulthandler(serve: Serve) -> None:
    server = serve({"app/x/route.py": WAITS}, command="dev")
    id = server.request("PATCH", "/x").headers["x-lampyr-id"]
    assert re.search(r'route.py", line 4 in helper\n.*line 9 in PATCH', told(server, id, ".*in PATCH"))


def test_a_second_deadline_in_one_process_is_told_too(serve: Serve) -> None:
    swallows = """
        import asyncio, time
        max_duration = 1
        async def GET():
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                return "late"
        async def POST(): time.sleep(5)
    """
    server = serve({"app/x/route.py": swallows}, command="dev")
    assert server.get("/x").status == 504
    id = server.request("POST", "/x").headers["x-lampyr-id"]
    told(server, id, ".*in POST")


AFTER = """
    import asyncio
    from lampyr import after
    def breaks(): {}["absent"]
    async def late():
        async with asyncio.timeout(0.01): await asyncio.sleep(1)
    async def gathers(): await asyncio.gather(late())
    def GET():
        after(breaks)
        after(gathers)
        return "x"
"""


def test_tracebacks_of_after_are_the_users(serve: Serve) -> None:
    server = serve({"app/x/route.py": AFTER}, command="dev")
    id = server.get("/x").headers["x-lampyr-id"]
    text = told(server, id, "TimeoutError$")
    assert "KeyError: 'absent'" in text
    files = set(re.findall(r'File "(.*)", line', text))
    assert files == {str(server.root / "app/x/route.py")}


NONSENSE = {
    "digits": ("def GET(): return {'a': 10**5000}\n", "GET returned dict, in which an int has more digits than"),
    "nan": ("def GET(): return {'a': float('nan')}\n", "GET returned dict, in which NaN or Infinity cannot"),
    "circle": (
        "def GET():\n    a = []\n    a.append(a)\n    return a\n",
        "GET returned list, in which something holds",
    ),
    "dicts": ("def GET():\n    yield {'a': 1}\n", "GET yielded dict; chunks are str or bytes, and sse"),
    "later": ("async def GET():\n    yield 'a'\n    yield {}\n", "GET yielded dict; chunks are"),
    "event": (
        "from lampyr import sse\ndef GET(): return sse([{'a': object()}])\n",
        "GET yielded dict, in which object",
    ),
}


@pytest.fixture
def nonsense(serve: Serve) -> Server:
    return serve({f"app/{name}/route.py": text for name, (text, _) in NONSENSE.items()}, command="dev")


def test_what_cannot_be_sent_is_named_with_file_and_method(nonsense: Server) -> None:
    for name, (_, line) in NONSENSE.items():
        if name == "later":  # cut after its first chunk
            with pytest.raises(Exception, match="IncompleteRead"):
                nonsense.get("/later")
        else:
            assert nonsense.get(f"/{name}").error == "FUNCTION_INVOCATION_FAILED"
        nonsense.log(rf"^/{name} \w+ \| /.*app/{name}/route.py: {re.escape(line)}")
    assert "Traceback" not in "\n".join(nonsense.lines)


def test_a_client_without_a_key_is_told_where_to_put_one(serve: Serve) -> None:
    route = "from openai import AsyncOpenAI\ndef GET(): AsyncOpenAI()\n"
    at_import = "from openai import AsyncOpenAI\nclient = AsyncOpenAI()\ndef GET(): ...\n"
    empty = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    server = serve({"app/a/route.py": route, "app/b/route.py": at_import}, command="dev", env=empty)
    for path in ("/a", "/b"):
        assert server.get(path).status == 500
    hint = r"hint: put OPENAI_API_KEY=\.\.\. into \.env\.local, or \[providers\.local\] into lampyr\.toml"
    server.log(r"^/a \w+ \| " + hint)
    server.log("^" + hint)


def test_a_wsgi_application_is_told_what_it_is_not(serve: Serve) -> None:
    class_based = """
        class Flask:
            def __call__(self, environ, start_response): ...
        app = Flask()
    """
    server = serve({"app/[[...path]]/route.py": class_based}, command="dev")
    assert server.get("/x").error == "FUNCTION_INVOCATION_FAILED"
    server.log(r"route.py:1: app is not an ASGI application: .*Flask takes \(environ, .*\nhint: .*a2wsgi.*WsgiToAsgi")


REFUSED = {
    b"GET /caf\xc3\xa9?q=1 HTTP/1.1\r\nhost: x\r\n\r\n": (400, r"GET /caf\\xc3\\xa9 400", "percent-encode them"),
    b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n": (400, "GET /a 400", "percent-encode it"),
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n": (414, r"GET /a{199}\.\.\. 414", ""),
    b"GET /h HTTP/1.1\r\nhost: x\r\nbig: " + b"a" * 40000 + b"\r\n\r\n": (431, "GET /h 431", ""),
    b"BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n": (400, "- /pot 400", "method"),
    b"\x16\x03\x01\x00hello\r\n\r\n": (400, "- - 400", "TLS"),
    b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n": (400, "POST /x 400", ""),
}


def test_what_the_front_door_refuses_is_in_the_log_under_its_id(serve: Serve) -> None:
    server = serve({"app/x/route.py": "def GET(): ...\n"}, command="dev")
    for sent, (status, line, words) in REFUSED.items():
        with server.connect() as sock:
            sock.sendall(sent)
            data = b""
            while piece := sock.recv(65536):
                data += piece
        text = data.decode()
        assert text.startswith(f"HTTP/1.1 {status} "), text
        assert words in text
        found = re.search(r"^x-lampyr-id: (\w+)", text, re.M)
        assert found is not None
        server.log(rf"^{line} [0-9.]+ ms {found[1]}$")

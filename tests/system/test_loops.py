"""SPEC 3: functions that call one another over the gateway, with any HTTP client, deeper than 16 are stopped."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import pytest
from serving import Serve

URLLIB = """
        import urllib.error, urllib.request
        def wait(url):
            try:
                with urllib.request.urlopen(url) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
"""
# Each gives `call(url)`, sync or async, for the status and the body. None of them sends a header of ours.
CLIENTS = {
    "urllib": URLLIB.replace("wait", "call"),
    "urllib3": """
        import urllib3
        pool = urllib3.PoolManager(maxsize=4)
        def call(url):
            answer = pool.request("GET", url, retries=False)
            return answer.status, answer.data.decode()
    """,
    "httpx2": """
        import httpx2
        async def call(url):
            async with httpx2.AsyncClient(timeout=30) as client:
                answer = await client.get(url)
            return answer.status_code, answer.text
    """,
    "httpx2-kept": """
        import httpx2
        client = httpx2.AsyncClient(timeout=30)
        async def call(url):
            answer = await client.get(url)
            return answer.status_code, answer.text
    """,
    "in-a-thread": URLLIB
    + """
        import asyncio
        async def call(url):
            return await asyncio.get_running_loop().run_in_executor(None, wait, url)
    """,
    "own-threads": URLLIB
    + """
        from concurrent.futures import ThreadPoolExecutor
        def call(url):
            with ThreadPoolExecutor(1) as own:
                return own.submit(wait, url).result()
    """,
    "streams": """
        import asyncio
        from urllib.parse import urlsplit
        async def call(url):
            at = urlsplit(url)
            reader, writer = await asyncio.open_connection(at.hostname, at.port)
            writer.write(f"GET {at.path} HTTP/1.0\\r\\nhost: {at.netloc}\\r\\n\\r\\n".encode())
            head, _, body = (await reader.read()).decode().partition("\\r\\n\\r\\n")
            writer.close()
            return int(head.split()[1]), body
    """,
    "curl": """
        import asyncio
        async def call(url):
            curl = await asyncio.create_subprocess_exec("curl", "-s", "-w", " %{http_code}", url, stdout=-1)
            body, _, status = (await curl.communicate())[0].decode().rpartition(" ")
            return int(status), body
    """,
    "curl-in-a-thread": """
        import subprocess
        def call(url):
            done = subprocess.run(["curl", "-s", "-w", " %{http_code}", url], capture_output=True, check=True)
            body, _, status = done.stdout.decode().rpartition(" ")
            return int(status), body
    """,
    "libc": """
        import ctypes, struct
        from urllib.parse import urlsplit
        libc = ctypes.CDLL(None)
        def call(url):  # as a client in C or Rust does it: no socket of Python's
            at = urlsplit(url)
            fd = libc.socket(2, 1, 0)
            address = struct.pack("=H", 2) + struct.pack("!H", at.port) + bytes([127, 0, 0, 1]) + bytes(8)
            assert libc.connect(fd, address, 16) == 0
            request = f"GET {at.path} HTTP/1.0\\r\\nhost: {at.netloc}\\r\\n\\r\\n".encode()
            libc.send(fd, request, len(request), 0)
            import os
            with open(fd, "rb") as answer:
                head, _, body = answer.read().decode().partition("\\r\\n\\r\\n")
            return int(head.split()[1]), body
    """,
}
KEEPING = ("urllib3", "httpx2-kept")
# Calls TO until somebody is refused, and then says how many have run.
SYNC = """
def GET(req):
    status, body = call(req.url.rpartition("/")[0] + "/TO")
    if status == 508:
        assert "INFINITE_LOOP_DETECTED" in body, body
        return "1"
    assert status == 200, (status, body)
    return str(int(body) + 1)
"""
ASYNC = SYNC.replace("def GET", "async def GET").replace("= call", "= await call")
MOST = 17  # what a client calls, and 16 below it


def caller(client: str, to: str, runtime: str) -> str:
    source = dedent(CLIENTS[client])
    handler = ASYNC if "async def call" in source else SYNC
    patience = "first_byte_timeout" if runtime == "edge" else "max_duration"
    return f'runtime = "{runtime}"\n{patience} = 60\n{source}{handler.replace("TO", to)}'


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked, and that is Linux")
class TestLoops:
    @pytest.mark.parametrize("runtime", ["standard", "edge"])
    @pytest.mark.parametrize("client", CLIENTS)
    def test_a_function_that_calls_itself_is_stopped(self, serve: Serve, client: str, runtime: str) -> None:
        server = serve({"app/again/route.py": caller(client, "again", runtime)})
        answers = [server.get("/again") for _ in range(2)]
        depths = [int(one.body) for one in answers if one.status == 200]
        if client in KEEPING and runtime == "edge":
            # Who uses a connection again cannot be told; so the second chain may be longer by what the first left.
            assert depths[0] == MOST and MOST <= depths[1] <= 2 * MOST, server.lines[-60:]
        else:
            assert depths == [MOST, MOST], server.lines[-60:]

    def test_functions_that_call_one_another_are_stopped(self, serve: Serve) -> None:
        server = serve(
            {
                "app/a/route.py": caller("httpx2", "b", "edge"),
                "app/b/route.py": caller("curl", "c", "standard"),
                "app/c/route.py": caller("urllib", "a", "standard"),
            }
        )
        answer = server.get("/a")
        assert (answer.status, answer.body) == (200, b"%d" % MOST), server.lines[-30:]


FAN = """
import asyncio
import httpx2
runtime = "RUNTIME"
KEPT

async def GET(req):
    if req.query.get("leaf"):
        await asyncio.sleep(0.05)
        return req.headers.get("x-lampyr-depth", "none")
    calls = (one(req.url + "?leaf=1") for _ in range(25))
    return await asyncio.gather(*calls)
"""
ONE = """
async def one(url):
    async with httpx2.AsyncClient(timeout=30) as client:
        return (await client.get(url)).text
"""
ONE_KEPT = """
client = httpx2.AsyncClient(timeout=30)
async def one(url):
    return (await client.get(url)).text
"""


ONE_IN_A_THREAD = """
import urllib.request
async def one(url):
    work = lambda: urllib.request.urlopen(url).read().decode()
    return await asyncio.get_running_loop().run_in_executor(None, work)
"""


@pytest.mark.parametrize("one", [ONE, ONE_KEPT, ONE_IN_A_THREAD], ids=["new", "kept", "in-a-thread"])
@pytest.mark.parametrize("runtime", ["standard", "edge"])
def test_many_calls_side_by_side_are_no_loop(serve: Serve, runtime: str, one: str) -> None:
    server = serve({"app/fan/route.py": FAN.replace("RUNTIME", runtime).replace("KEPT", one)})
    for _ in range(3):
        answer = server.get("/fan")
        assert (answer.status, answer.body) == (200, b"[" + b",".join([b'"1"'] * 25) + b"]"), server.lines[-30:]


@pytest.mark.parametrize("client", ["httpx2-kept", "curl"])
@pytest.mark.parametrize("runtime", ["standard", "edge"])
def test_many_clients_of_a_function_that_calls_itself_once_are_no_loop(serve: Serve, client: str, runtime: str) -> None:
    source = caller(client, "once?leaf=1", runtime).replace(
        "    status, body", '    if req.query.get("leaf"):\n        return "1"\n    status, body'
    )
    server = serve({"app/once/route.py": source})
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: server.get("/once"), range(60)))
    assert {(one.status, one.body) for one in answers} == {(200, b"2")}, server.lines[-30:]


def test_a_header_that_is_sent_on_counts_and_one_that_is_made_up_is_not_seen(serve: Serve) -> None:
    """Behind a proxy the connection is the proxy's: there the header says the depth."""
    server = serve({"app/depth/route.py": 'def GET(req): return req.headers.get("x-lampyr-depth", "none")'})
    assert server.get("/depth").body == b"none"
    assert server.get("/depth", x_lampyr_depth="16").body == b"16"
    assert server.get("/depth", x_lampyr_depth="all the way down").body == b"none"
    answer = server.get("/depth", x_lampyr_depth="17")
    assert (answer.status, answer.error) == (508, "INFINITE_LOOP_DETECTED")
    assert answer.json()["error"]["id"] == answer.headers["x-lampyr-id"]
    server.log(rf"GET /depth 508 .*{answer.headers['x-lampyr-id']}")

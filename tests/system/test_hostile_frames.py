"""Functions that write frames of their own making: whatever they say, their clients are answered, and nobody else."""

from __future__ import annotations

import http.client
import textwrap

import pytest
from serving import Answer, Serve, Server, ended, until

# Handlers find the instance they run in, and with it the socket to the gateway.
PROJECT = {
    "app/api/forge/route.py": """
        import asyncio
        from lampyr.runtime import wire

        rate_limit = "none"
        max_duration = 5

        async def POST(req):
            instance = asyncio.current_task().get_coro().cr_frame.f_locals["self"].instance
            stream = next(iter(instance.running))
            for step in (await req.text()).split():
                FORGE[step](instance, stream)
            await asyncio.sleep(60)

        def sends(kind, *fields, body=b""):
            def send(instance, stream):
                frame = wire.head_frame(stream, kind, list(fields), body) if fields else wire.frame(stream, kind, body)
                instance.sock.send(frame)
            return send

        FORGE = {
            "head": sends(wire.HEAD, b"200"),
            "answer": sends(wire.ANSWER, b"200", body=b"well"),
            "end": sends(wire.END),
            "after": sends(wire.AFTER),
            "done": sends(wire.DONE),
            "busy": sends(wire.BUSY),
            "hello": sends(wire.HELLO),
            "request": sends(wire.REQUEST_WHOLE, b"x"),
            "fail": sends(wire.FAIL, body=b"raised\\0no"),
            "credit": sends(wire.BODY_CREDIT, body=b"\\xff" * 4),
            "giant": lambda instance, stream: instance.sock.send(wire.HEADER.pack(2**32 - 1, stream, wire.CHUNK)),
            "stranger": lambda instance, stream: instance.sock.send(wire.frame(stream + 9, wire.END)),
            "shutdown": lambda instance, stream: instance.sock.shutdown(2),
            "date": sends(wire.ANSWER, b"200", b"date", b"now\\rx-evil: 1"),
            "value": sends(wire.ANSWER, b"200", b"x-a", b"now\\nx-evil: 1"),
            "name": sends(wire.ANSWER, b"200", b"x-evil: 1\\r\\nx", b"1"),
            "length": sends(wire.ANSWER, b"200", b"Content-Length", b"9"),
        }
    """,
    "app/api/well/route.py": """
        def GET():
            return "well"
    """,
}
FORGED = {
    "an end without a head": ("end", 500),
    "nothing but the end of what is left to do": ("done", 500),
    "after, and the end of it": ("after done", 500),
    "an answer behind a head": ("head answer", None),
    "an end behind an end": ("head end end", 200),
    "an answer and its failure": ("answer fail", 200),
    "BUSY for the request it serves": ("busy", 502),
    "HELLO again": ("hello", 502),
    "a request": ("request", 502),
    "a frame of 4 GiB": ("giant", 502),
    "a frame of a stream that nobody opened": ("stranger", 502),
    "credit without end": ("credit answer", 200),
    "the end of the socket": ("shutdown", 502),
    "a CR in the date": ("date", 500),
    "a LF in a value": ("value", 500),
    "lines in a name": ("name", 500),
    "a length in other letters": ("length", 500),
}


@pytest.fixture(scope="module", params=["standard", "edge"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    from serving import write

    root = tmp_path_factory.mktemp(request.param) / "project"
    files = dict(PROJECT)
    forge = "app/api/forge/route.py"
    write(root, {**files, forge: f'runtime = "{request.param}"\n{textwrap.dedent(files[forge])}'})
    server = Server(root, "start")
    request.addfinalizer(server.stop)
    return server


def forge(server: Server, steps: str) -> Answer | None:
    """The answer to a request whose function forges these frames; None where it was cut off."""
    try:
        return server.request("POST", "/api/forge", steps)
    except (http.client.HTTPException, ConnectionError):
        return None


@pytest.mark.parametrize("what", FORGED)
def test_whatever_a_function_says_its_client_is_answered(server: Server, what: str) -> None:
    steps, status = FORGED[what]
    answer = forge(server, steps)
    assert (answer.status if answer else None) == status
    assert answer is None or "x-evil" not in answer.headers
    assert server.get("/api/well").body == b"well"
    forge(server, "giant")  # the handler still runs; the next one gets an instance of its own


def test_who_answers_again_and_again_does_not_live_longer(server: Server) -> None:
    answer = forge(server, "after answer answer")
    assert answer is not None and answer.status == 200
    server.log(rf"{answer.headers['x-lampyr-id']}: the process ended: it answered a request twice")


def test_a_failure_with_a_long_message_is_told_in_part(serve: Serve) -> None:
    server = serve({
        "app/api/long/route.py": """
            from lampyr import BadRequest, Response

            def GET(req):
                if "bad" in req.query:
                    raise BadRequest("z" * 1_000_000)
                if "head" in req.query:
                    return Response("x", headers={"x-long": "z" * 100_000})
                if "stream" in req.query:
                    return Response(iter(["x"]), headers={"x-long": "z" * 100_000})
                raise ValueError("z" * 1_000_000)
        """,
    })  # fmt: skip
    failed = server.get("/api/long")
    assert failed.error == "FUNCTION_INVOCATION_FAILED"
    server.log(r"\| Traceback")
    server.log(r"\| \.\.\. \d+ characters left out \.\.\.")
    bad = server.get("/api/long?bad")
    assert bad.error == "BAD_REQUEST" and b"left out" in bad.body
    for how in ("head", "stream"):
        assert server.get(f"/api/long?{how}").error == "FUNCTION_INVOCATION_FAILED"
        server.log(r"ValueError: the headers of the response take \d+ bytes; at most 65536 can be sent")


def test_a_masked_body_that_comes_in_parts_is_whole(serve: Serve) -> None:
    server = serve({
        ".env.local": "SOME_TOKEN=this-is-a-token-of-mine\n",
        "app/api/big/route.py": """
            import os

            def GET():
                return b"a" * 200_000 + os.environ["SOME_TOKEN"].encode() + b"b" * 200_000
        """,
    })  # fmt: skip
    assert server.get("/api/big").body == b"a" * 200_000 + b"***" + b"b" * 200_000


def test_a_snapshot_that_lies_ends_and_nothing_else(serve: Serve) -> None:
    files = {
        "app/api/well/route.py": PROJECT["app/api/well/route.py"],
        "app/api/liar/route.py": """
            import array, os, socket, threading, time

            def channel():
                for fd in map(int, os.listdir("/proc/self/fd")):
                    try:
                        sock = socket.socket(fileno=os.dup(fd))
                    except OSError:
                        continue
                    if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
                        return sock

            LIES = [
                b'{"ready":[],"files":[[1]]}', b'{"ready":[],"files":5}', b'{"failed":{"file":[],"traceback":7}}',
                b'{"exited":1}', b'{"fds":"x"}', b'{"fds":-1}', b"[" * 100_000, b"{}" * 10, b"nothing",
            ]
            which = int(open(os.path.dirname(__file__) + "/which.txt").read())
            sock = channel()
            if which < len(LIES):
                sock.send(len(LIES[which]).to_bytes(4, "big") + LIES[which])
            elif which == len(LIES):
                sock.send((60_000_000).to_bytes(4, "big"))
                for _ in range(300):
                    sock.send(b"x" * 200_000)
            else:
                sock.send((1_000_000).to_bytes(4, "big"))
                for _ in range(3000):
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 8))]
                    sock.sendmsg([b"x"], rights)
            time.sleep(0.2)  # they are read before the import has ended

            def GET():
                return "well"
        """,
        "app/api/liar/which.txt": "0",
    }
    server = serve(files, command="dev")
    gateway, control = server.find("lampyr.gateway"), server.find("lampyr.control")
    for which in range(11):
        server.write("app/api/liar/which.txt", str(which))
        server.write("app/api/liar/route.py", files["app/api/liar/route.py"] + "\n" * which)
        assert server.get("/api/liar").status in (200, 500)
        assert server.get("/api/well").body == b"well"
    until(lambda: gateway.num_fds() < 200, "the descriptors to be closed")
    assert not ended(gateway) and not ended(control)


LIES_ABOUT_A_CHILD = {
    "it gives a file": "os.open(__file__, os.O_RDONLY)",
    "it gives /dev/null": "os.open('/dev/null', os.O_RDONLY)",
    "it gives a socket": "socket.socketpair()[0].detach()",
    "it gives a process that has nothing to do with it": "os.pidfd_open(os.getpid())",
    "it says nothing": None,
}


@pytest.mark.parametrize("runtime", ["standard", "edge"])
@pytest.mark.parametrize("lie", LIES_ABOUT_A_CHILD)
def test_a_snapshot_that_lies_about_its_children(serve: Serve, lie: str, runtime: str) -> None:
    given = LIES_ABOUT_A_CHILD[lie]
    server = serve(
        {
            "app/api/well/route.py": PROJECT["app/api/well/route.py"],
            "app/api/liar/route.py": f"""
            import __main__, os, socket, time
            runtime = "{runtime}"
            max_duration = 1

            def forked(self, pid):
                if {given is not None}:
                    self.tell({{"forked": pid}}, ({given},))

            __main__.Forker._forked = __main__.TidyForker._forked = forked

            async def GET(req):
                if "block" in req.query:
                    time.sleep(5)
                return "liar"
        """,
        },
        command="dev",
    )  # `start` would refuse it
    for query in ("", "?block", ""):
        assert server.get(f"/api/liar{query}").status in (200, 502, 504)
        assert server.get("/api/well").body == b"well"
    assert not [line for line in server.lines if "Traceback" in line and "|" not in line], server.lines

"""Instances are forked from one memory image; nothing that should differ between them is equal, and none hangs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Serve, until

from lampyr.testing import Client

FORKS = 1000

GENERATORS = """
    import asyncio, pathlib, random, secrets, ssl, tempfile, uuid
    import numpy as np
    from lampyr import Request

    runtime = "edge"
    concurrency = 1
    max_instances = 200
    rate_limit = "none"
    first_byte_timeout = 300

    class Faker:
        def __init__(self): self.random = random.Random()

    class Dice(random.Random): pass

    class Stern(random.Random):
        def __init__(self): self.setstate(random.Random().getstate())
        def seed(self): raise ValueError("not like this")

    stern = Stern()
    mine, dice, faker, system = random.Random(), Dice(), Faker(), random.SystemRandom()
    rng, old, bits = np.random.default_rng(), np.random.RandomState(), np.random.Philox()
    cached = np.random.Generator(np.random.SFC64())
    # Everything has been used before the fork, and some of it has half of its next answer ready.
    random.gauss(0, 1), mine.gauss(0, 1), rng.random(), old.randn(), np.random.randn()
    cached.integers(2**32, dtype=np.uint32)
    ssl.RAND_bytes(8), uuid.uuid1(), uuid.uuid4(), secrets.token_hex()

    DRAWS = {
        "random.random": random.random,
        "random.gauss": lambda: random.gauss(0, 1),
        "Random": mine.random,
        "Random.gauss": lambda: mine.gauss(0, 1),
        "a subclass": lambda: dice.getrandbits(64),
        "a stern subclass": stern.random,
        "in an object": faker.random.random,
        "SystemRandom": system.random,
        "numpy.random.rand": lambda: float(np.random.rand()),
        "numpy.random.randn": lambda: float(np.random.randn()),
        "default_rng": lambda: float(rng.random()),
        "spawn": lambda: float(rng.spawn(1)[0].random()),
        "RandomState.randn": lambda: float(old.randn()),
        "BitGenerator": lambda: int(bits.random_raw()),
        "half a word": lambda: int(cached.integers(2**32, dtype=np.uint32)) << 32 | int(cached.integers(2**32)),
        "uuid1": lambda: str(uuid.uuid1()),
        "uuid1, but for the time": lambda: str(uuid.uuid1())[19:],
        "uuid4": lambda: str(uuid.uuid4()),
        "secrets": secrets.token_hex,
        "ssl": lambda: ssl.RAND_bytes(16).hex(),
        "tempfile": lambda: tempfile.mktemp(dir=""),
    }

    async def GET(req: Request):
        drawn = {name: [draw() for _ in range(3)] for name, draw in DRAWS.items()}
        print(f"drawn in {req.query['n']}.", flush=True)
        while not (pathlib.Path(__file__).parent / "go").exists():
            await asyncio.sleep(0.1)
        return drawn
"""


@pytest.mark.alone
def test_200_instances_draw_no_equal_value(serve: Serve) -> None:
    server = serve({"app/draw/route.py": GENERATORS})
    with ThreadPoolExecutor(200) as clients:
        answers = [clients.submit(server.get, f"/draw?n={number}") for number in range(200)]
        until(lambda: sum("drawn in" in line for line in server.lines) == 200, "200 instances at once", 120)
        (server.live / "app/draw/go").touch()
        drawn = [answer.result().json() for answer in answers]
    assert len(drawn) == 200
    for name in drawn[0]:
        values = [json.dumps(value) for one in drawn for value in one[name]]
        distinct = 600 if name != "uuid1, but for the time" else 200
        assert len(set(values)) >= distinct, name


BUSY_IMPORT = """
    import logging, os, pathlib, threading, time

    rate_limit = "none"
    idle_timeout = 0
    log = logging.getLogger("busy")
    logging.basicConfig(level=logging.INFO)
    file = open(os.environ.get("TMPDIR", "/tmp") + "/busy.log", "a")

    def busy():
        while True:
            kept = [bytes(1 + 997 * size) for size in range(50)]
            log.info("%d pieces", len(kept))
            print(len(kept), file=file, flush=True)
            time.sleep(0.0005)

    for _ in range(4):
        threading.Thread(target=busy, daemon=True).start()

    def GET(req):
        kept = [bytes(1 + 997 * size) for size in range(50)]
        log.info("answering")
        print("answering", flush=True)
        print("answering", file=file, flush=True)
        worker = threading.Thread(target=kept.clear)
        worker.start()
        worker.join()
        return f"{os.stat('/proc/self').st_ino} {time.monotonic_ns()} {os.getpid()}"
"""


@pytest.mark.alone
def test_1000_forks_of_a_snapshot_with_busy_threads_all_answer(serve: Serve) -> None:
    server = serve({"app/busy/route.py": BUSY_IMPORT})
    cold = 0
    with ThreadPoolExecutor(4) as clients:
        while cold < FORKS:
            for answer in clients.map(lambda _: server.get("/busy"), range(100)):
                assert answer.status == 200, "\n".join(server.lines[-20:])
                cold += "desc=cold" in answer.headers["server-timing"]


HOOKS = """
    from lampyr import after_restore, before_snapshot
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    LOG = []

    @register_before_snapshot
    def first(): LOG.append("before 1")

    before_snapshot(lambda: LOG.append("before 2"))
    register_before_snapshot(LOG.append, "before 3")

    @register_after_restore
    def then(): LOG.append("after 1")

    after_restore(lambda: LOG.append("after 2"))
    register_after_restore(lambda name, *, mark: LOG.append(name + mark), "after ", mark="3")

    def GET(): return LOG
"""
IN_ORDER = ["before 3", "before 2", "before 1", "after 1", "after 2", "after 3"]


def test_hooks_have_the_names_and_the_order_of_aws_too(serve: Serve) -> None:
    server = serve({"app/hooks/route.py": HOOKS})
    assert server.get("/hooks").json() == IN_ORDER
    with Client(server.root) as client:
        assert client.get("/hooks").json() == IN_ORDER


def test_a_hook_that_is_async_is_an_error_that_says_so(serve: Serve) -> None:
    text = """
        from lampyr import after_restore

        @after_restore
        async def connect(): ...

        def GET(): return "never"
    """
    server = serve({"app/hooks/route.py": text}, command="dev")
    assert server.get("/hooks").status == 500
    server.log(r"app/hooks/route.py:4: TypeError: connect is async, and hooks run before there is an event loop")


def test_a_hook_that_raises_ends_its_instance_and_the_log_says_where(serve: Serve) -> None:
    text = """
        from lampyr import after_restore

        @after_restore
        def connect(): raise OSError("no database")

        def GET(): return "never"
    """
    server = serve({"app/hooks/route.py": text}, command="dev")  # `start` would refuse it
    answer = server.get("/hooks")
    assert (answer.status, answer.error) == (502, "FUNCTION_CRASHED")
    server.log(r"OSError: no database")
    log = "\n".join(server.lines)
    assert 'app/hooks/route.py", line 5, in connect' in log
    assert "lampyr/runtime" not in log and "runpy" not in log


SHARED = """
    import threading, uuid

    TOKEN = uuid.uuid4().hex
    threading.Timer(3600, print).start()
    def GET(): return TOKEN
"""
CURED = """
    import threading, uuid
    from lampyr import after_restore

    TOKEN = ""

    @after_restore
    def begin():
        global TOKEN
        TOKEN = uuid.uuid4().hex
        threading.Timer(3600, print).start()

    def GET(): return TOKEN
"""


@pytest.mark.parametrize("command", ["start", "dev"])
def test_what_instances_cannot_share_is_a_warning_once_and_a_hook_cures_it(serve: Serve, command: str) -> None:
    server = serve({"app/shared/route.py": SHARED, "app/cured/route.py": CURED}, command=command)
    assert server.get("/shared").status == server.get("/cured").status == 200
    server.log(r"warning: app/shared/route.py:4: TOKEN is drawn at import \(uuid.uuid4\): the same in every instance")
    server.log(r"warning: app/shared/route.py:5: the import starts a thread")
    server.stop()
    assert sum("warning: app/" in line for line in server.lines) == 2

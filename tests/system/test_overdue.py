"""Deadlines of calls that no handler has begun with: the log says what they were waiting for."""

from __future__ import annotations

import threading

from serving import Answer, Serve, until

IMPORTS = """
import time
max_duration = 1
time.sleep(4)  # the line to be named


def GET(): return "there"
"""
LINE = 1 + IMPORTS.split("\n").index("time.sleep(4)  # the line to be named")
BUSY = """
import time
max_duration = 2
max_instances = 1


def GET():
    time.sleep(1.5)
    return "there"
"""


def test_a_call_whose_function_is_still_being_imported(serve: Serve) -> None:
    server = serve({"app/x/route.py": IMPORTS}, command="dev")
    answers = [server.get("/x"), server.get("/x")]
    assert [answer.status for answer in answers] == [504, 504]
    for answer in answers:
        id = answer.headers["x-lampyr-id"]
        server.log(f"/x {id}: its time was over while the function was being imported")
    server.log(rf'/x \| +File ".*app/x/route\.py", line {LINE} in <module>')
    until(lambda: server.get("/x").body == b"there", "the import, which goes on")
    assert sum("in <module>" in line for line in server.lines) == 1  # one stack, however many have waited


def test_a_call_that_has_waited_for_a_busy_instance(serve: Serve) -> None:
    server = serve({"app/x/route.py": BUSY})
    answers: list[Answer] = []
    asking = [threading.Thread(target=lambda: answers.append(server.get("/x"))) for _ in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 504, 504]
    assert server.log(r"/x \w+: its time was over while it waited: max_instances is 1")

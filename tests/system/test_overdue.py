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
HANGS = """
import time
time.sleep(20)
time.sleep(1000)  # the line to be named


def GET(): return "never"
"""
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


def test_an_import_that_never_ends_is_ended_and_the_log_says_where_it_stood(serve: Serve) -> None:
    """It has the whole minute: where it stood when a call gave up, 10 s after its begin, is another line."""
    server = serve({"app/x/route.py": HANGS}, command="dev")
    assert server.get("/x").status == 504
    server.log(r'/x \| +File ".*app/x/route\.py", line 3 in <module>')
    until(lambda: any("line 4 in <module>" in line for line in server.lines), "the end of the import", 90)
    until(lambda: server.get("/x").status == 500, "what came of it")
    server.log(r"the import did not finish within 60 s\nhint: its stack above")


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

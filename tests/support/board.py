"""A board on which handlers leave marks for a test: a function shares no folder with the world, but a network."""

from __future__ import annotations

import json
import socketserver
import threading
from functools import cache
from pathlib import Path

# The same for a project's own module `marks`; `FOLDER` names the folder of the test, which only the test can see.
CLIENT = '''
    """Marks that handlers leave for the tests, and gates that tests open for handlers."""

    import asyncio
    import json
    import os
    import socket
    import time


    def _ask(do, name, text=""):
        with socket.create_connection(("127.0.0.1", int(os.environ["MARKS_PORT"])), 20) as sock:
            asked = {"do": do, "folder": os.environ["MARKS_FOLDER"], "name": name, "text": str(text)}
            sock.sendall(json.dumps(asked).encode() + b"\\n")
            return sock.recv(8) == b"yes"


    def reach(name, text=""):
        _ask("reach", name, text)


    def note(name, text):
        _ask("note", name, f"{text} ")


    async def gate(name):
        while not _ask("look", name):
            await asyncio.sleep(0.005)


    def wait(name):
        while not _ask("look", name):
            time.sleep(0.005)
'''


class _Visit(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return
        asked = json.loads(line)
        place = Path(asked["folder"]) / asked["name"]
        if asked["do"] == "reach":
            new = place.with_name(f"{place.name}.{self.client_address[1]}.new")
            new.write_text(asked["text"])
            new.rename(place)
        elif asked["do"] == "note":
            with place.open("a") as file:
                file.write(asked["text"])
        self.wfile.write(b"yes" if place.exists() else b"no")


class _Board(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor that was killed in the middle of a word is what some tests are about."""


@cache
def port() -> int:
    """Where the board hangs; it is there from the first question until the tests end."""
    board = _Board(("127.0.0.1", 0), _Visit)
    threading.Thread(target=board.serve_forever, daemon=True).start()
    return int(board.server_address[1])

"""Our line to control: the door's protocol (control/door.py) over a connection that the supervisor has made for us."""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import count
from typing import Any

from lampyr.control.door import VERSION
from lampyr.errors import LampyrError, StateError

PATIENCE_S = 10.0
# A log or a list of a thousand functions.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Line:
    """Asks control, and asks again where it has died over a question: only what may be done twice is asked here."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = count(1)
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Any]]] = {}
        self._hearing: asyncio.Task[None] | None = None

    def connect(self, sock: socket.socket) -> None:
        """There is a control process, perhaps in place of one that has died."""
        if self._hearing is not None:
            self._hearing.cancel()
        self._hearing = asyncio.create_task(self._hear(sock))

    async def ask(self, do: str, **more: Any) -> Any:
        """The result of one request. Raises LampyrError."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        line = json.dumps({"version": VERSION, "number": number, "do": do, **more}).encode() + b"\n"
        self._waiting[number] = line, answer
        if self._writer is not None:
            self._writer.write(line)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError:
            raise StateError("the server does not answer", "see what its log says") from None
        finally:
            del self._waiting[number]

    async def _hear(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_ANSWER_BYTES)
        self._writer = writer
        for line, _ in self._waiting.values():
            writer.write(line)
        try:
            while line := await reader.readline():
                self._answered(json.loads(line))
        except (OSError, ValueError):
            pass  # it has died; the next one is on its way
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _answered(self, told: dict[str, Any]) -> None:
        _, answer = self._waiting.get(told["number"], (b"", None))
        if answer is None or answer.done():
            return
        if (error := told.get("error")) is not None:
            problem = LampyrError(error["message"], error["hint"])
            problem.code = error["code"]
            answer.set_exception(problem)
        else:
            answer.set_result(told["result"])

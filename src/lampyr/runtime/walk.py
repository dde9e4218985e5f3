"""A walk: a thread makes the chunks of a sync iterable, and sends each before it makes the next."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.runtime.stream import END, ThreadSource

if TYPE_CHECKING:
    from lampyr.runtime.invocation import Invocation


class Walk:
    """Of one invocation: `encode` makes the bytes of a chunk, `spoke` is called when some were sent.

    To hand each chunk over to the loop's thread, and wait for the word to go on, would cost 40 µs of CPU a chunk.
    """

    def __init__(
        self,
        invocation: Invocation,
        source: ThreadSource,
        encode: Callable[[object], bytes],
        spoke: Callable[[], None] | None,
    ) -> None:
        self._invocation = invocation
        self._source = source
        self._encode = encode
        self._spoke = spoke
        self._room_bytes = invocation.room_bytes
        self.sent_bytes = 0

    def run(self) -> bytes | None:
        """To be called in a thread. Ends with the bytes that have to wait for the client, with b"" where the thread is
        wanted elsewhere or the invocation has been cancelled, and with None when there are no more chunks."""
        threads = self._invocation.threads
        while not threads.interrupted:
            chunk = self._source.step()
            if chunk is END:
                return None
            with threads.lock:
                monotonic()  # an interruption that is on its way arrives here, and not in the midst of a frame
                data = self._encode(chunk)
                if data and not self._send(data):
                    return data
            if threads.wanted:
                break
        return b""

    def _send(self, data: bytes) -> bool:
        size = len(data)
        if self.sent_bytes + size > self._room_bytes or not self._invocation.write_from_thread(data):
            return False
        self.sent_bytes += size
        if self._spoke is not None:
            self._spoke()
        return True

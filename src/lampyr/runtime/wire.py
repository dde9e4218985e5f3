"""Frames between the gateway and an instance: nine bytes of header, then a payload.

A frame is `length:u32 stream:u32 kind:u8` and `length` bytes, big-endian, over an inherited Unix socketpair. Heads are
byte fields joined by NUL: no field can hold a NUL because the gateway refuses it in requests and in responses, so both
sides read a head with one `split` and no parser (0.3 µs; JSON takes 4 µs, and unpickling anything an instance sent
would hand it the gateway).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

# Final: compiled code then finds them without looking them up, which takes 0.2 µs a chunk.
HEADER: Final = Struct("!IIB")
HEADER_BYTES: Final = HEADER.size
_HEAD: Final = Struct("!IIBI")  # the header of a frame with a head, and the length of that

# gateway -> instance
REQUEST: Final = 1  # head length u32, head, then the first bytes of the body; the body continues in BODY frames
REQUEST_WHOLE: Final = 2  # the same, and the body is complete
BODY: Final = 3  # more of a request body
BODY_END: Final = 4  # the request body is complete
CREDIT: Final = 5  # u32: the instance may send that many more bytes of this stream
CANCEL: Final = 6  # the client has left or the deadline has passed
RETIRE: Final = 7  # finish what runs, take nothing more, exit
PING: Final = 8  # does the loop turn?
WAKE: Final = 9  # it was parked, and is wanted: say hello

# instance -> gateway
HELLO: Final = 16  # ready for requests
ANSWER: Final = 17  # head length u32, head, body: a complete response
HEAD: Final = 18  # the head of a streamed response
CHUNK: Final = 19  # one chunk of a streamed response, sent on as it is
END: Final = 20  # the streamed response is complete
FAIL: Final = 21  # the handler failed; payload is the kind of failure, then NUL, then the traceback for the log
BODY_CREDIT: Final = 22  # u32: the gateway may send that many more bytes of this request's body
DONE: Final = 23  # what the response left to run after it (`after`) has finished; sent only after AFTER
AFTER: Final = 24  # the response is complete but the stream stays occupied until DONE
QUICK_ANSWER: Final = 25  # an answer whose handler never waited and took no time to speak of (core/pace.py)
BUSY: Final = 26  # the request was read and not begun: this instance serves one at a time, and another one runs
PONG: Final = 27  # it does
PARKED: Final = (
    28  # forked ahead, and as ready as can be without the user's code; one byte: whether requests may come at once
)

# Fields of a request head; header names and values alternate from HEADERS on.
ID, METHOD, ORIGIN, PATH, QUERY, PARAMS, IP, DEADLINE, REGION, HEADERS = range(10)

# The most one write may hold, and one read takes. Instances that serve one request at a time are spoken to in packets
# (SOCK_SEQPACKET), so that every request is read by itself; a packet larger than its reader's buffer would be cut.
PACKET_BYTES: Final = 64 * 1024

# A stream may be this far ahead of its reader before its generator waits (both directions).
WINDOW_BYTES: Final = 256 * 1024


def frame(stream: int, kind: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(len(payload), stream, kind) + payload


def head_frame(stream: int, kind: int, fields: list[bytes], body: bytes = b"") -> bytes:
    """One frame that carries a head (byte fields without NUL) and the body bytes that go with it."""
    head = b"\0".join(fields)
    length = len(head)
    return _HEAD.pack(4 + length + len(body), stream, kind, length) + head + body


def split_head(payload: bytes) -> tuple[list[bytes], bytes]:
    """The fields of a head frame's payload and the body bytes behind them."""
    head, body = part_head(payload)
    return head.split(b"\0"), body


def part_head(payload: bytes) -> tuple[bytes, bytes]:
    """The same with the fields still joined."""
    end = 4 + int.from_bytes(payload[:4], "big")
    return payload[4:end], payload[end:]

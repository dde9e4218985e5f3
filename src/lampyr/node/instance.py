"""One instance as the gateway sees it: its process, the calls it serves, what it says of them."""

from __future__ import annotations

import os
import shutil
import signal
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from lampyr.core import lifecycle
from lampyr.core.pace import MOST_AHEAD
from lampyr.node.exit import Exit
from lampyr.node.logs import LogPipe
from lampyr.node.meter import Meter, SharedMeter
from lampyr.node.processes import end, pid_of, send_signal
from lampyr.runtime import wire
from lampyr.runtime.stack import STACK_SIGNAL

if TYPE_CHECKING:
    from lampyr.node.caller import Caller
    from lampyr.node.link import Link
    from lampyr.node.pool import Pool

# No frame of an honest instance is larger: bodies leave in pieces of one window.
MAX_FRAME_BYTES: Final = wire.WINDOW_BYTES + 128 * 1024
# Frames that complete a response; their kind stands last in the header.
ENDS: Final = frozenset({wire.ANSWER, wire.QUICK_ANSWER, wire.END, wire.FAIL})
KIND_AT: Final = wire.HEADER_BYTES - 1
# Why an instance has ended, where the kernel has ended it for that.
OUT_OF_MEMORY = "it needed more memory than it may use"
# By itself; the exit status says more.
CRASHED = "crashed"


class Instance:
    """`running` maps streams to callers; `reason` is why it was told to end or killed, None for a death of its own."""

    __slots__ = (
        "_deaf",
        "_inbox",
        "_link",
        "_loop",
        "_pool",
        "_recent",
        "_streams",
        "_tells_stack",
        "asked_s",
        "blocked",
        "caller",
        "due",
        "exit",
        "first_bytes",
        "forked_s",
        "init_ms",
        "killed",
        "meter",
        "number",
        "pidfd",
        "pipes",
        "prompt",
        "reason",
        "running",
        "send",
        "served",
        "shunned",
        "silent",
        "since_s",
        "state",
        "takes_more",
        "tmp",
        "weighed",
        "worn",
    )

    def __init__(self, pool: Pool, number: int, link: Link, pipes: list[LogPipe], tmp: str) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._link = link
        self.send = link.send  # frames
        self._inbox = b""
        self._streams = 0
        self._deaf: set[int] = set()  # streams whose handlers do not stop
        self.number = number
        self.pipes = pipes
        self.tmp = tmp
        self.pidfd = -1
        self.prompt = False  # parked, it takes requests at once
        self.state: lifecycle.State = "starting"
        self.running: dict[int, Caller] = {}
        self.caller: Caller | None = None  # who writes to the log, where a line does not say so
        self._recent: deque[str] = deque(maxlen=2 * pool.concurrency + 64)  # ids of the latest callers
        self.served = 0
        self.since_s = 0.0  # when it began with what it is at, or became idle
        self.takes_more = False  # requests may wait in its socket behind the one it serves
        self.forked_s = monotonic()  # uvloop's own clock has whole milliseconds
        self.asked_s = 0.0  # since when its loop owes a sign of life (node/watch.py)
        self.blocked = False  # it owes that for long
        self._tells_stack = False  # was asked to, and what comes now is that
        self.silent = False  # it has not answered since the last look
        self.shunned = 0  # reasons why it gets no more requests for now
        self.first_bytes = 0  # of memory, after its first requests
        self.weighed = 0  # what it had served then when it was looked at
        self.due = False  # to be weighed as soon as nothing runs in it
        self.worn = ""  # why another one should follow it
        self.init_ms = 0.0
        memory_gb = pool.function.settings.memory / 1024
        self.meter = SharedMeter(memory_gb) if pool.concurrency > 1 else Meter(memory_gb)
        self.reason: str | None = None
        self.killed = False  # by us, for that reason
        self.exit = Exit(pool.loop)
        link.on_full = self._full
        link.listen(self._read)

    @property
    def one_at_a_time(self) -> bool:
        """Whether only the eldest of `running` runs, and others wait in the socket behind it."""
        return self._pool.concurrency == 1

    # --- what the gateway says

    def begin(self, caller: Caller, kind: int, fields: list[bytes], body: bytes) -> int:
        """Hand over a request; returns the stream that the caller's further frames name."""
        self._streams = stream = self._streams + 1
        if self.running:
            self.caller = None
        else:
            self.caller = caller
            self.since_s = monotonic()
            # What lies behind pieces of a frame cannot be told from them. Once one more call is over they were read.
            self.takes_more = self._link.packets and caller.brief and not self._link.torn
            self._link.torn = False
        self.running[stream] = caller
        self._recent.append(caller.id)
        self.served += 1
        self.send(wire.head_frame(stream, kind, fields, body))
        return stream

    def take_back(self, *, all: bool = False) -> list[Caller]:
        """Take the requests that the process has not read out of its socket; the eldest only if `all`.

        A packet is read by one of us: a request that is taken here will never run there.
        """
        callers: list[Caller] = []
        others: list[bytes] = []
        eldest = None if all else next(iter(self.running), None)
        while packet := self._link.unread():
            _, stream, kind = wire.HEADER.unpack_from(packet)
            if kind == wire.REQUEST_WHOLE and stream != eldest and stream in self.running:
                callers.append(self.running.pop(stream))
            else:
                others.append(packet)
        for packet in others:
            self._link.write(packet)
        return callers

    def never_read(self) -> list[Caller]:
        """Whose requests the process, which is over, has not read: none of them has run."""
        eldest = next(iter(self.running.values()), None)
        if eldest is None or not self._link.packets:
            return []
        callers = [] if self._link.torn else self.take_back(all=eldest.brief)
        for frame in self._link.unsent():
            _, stream, kind = wire.HEADER.unpack_from(frame)
            if kind == wire.REQUEST_WHOLE and stream in self.running and self.running[stream].brief:
                callers.append(self.running.pop(stream))
        return callers

    def _full(self) -> None:
        self.takes_more = False

    def retire(self, reason: str) -> None:
        """Finish what runs, take nothing more, exit."""
        if self.state in ("retiring", "ended"):
            return
        self.step("retire")
        self.reason = reason
        # What waits in the socket goes elsewhere now: taken out later, it could be put back behind the end.
        behind = self.take_back() if len(self.running) > 1 and self._link.packets else []
        self.send(wire.frame(0, wire.RETIRE))
        for caller in behind:
            caller.returned()

    def print_stack(self) -> None:
        """Have the process write its Python stacks to its log, whatever it is doing (faulthandler)."""
        self._tells_stack = True
        self._signal(STACK_SIGNAL)
        self._signal(signal.SIGCONT)  # it may have been stopped

    def listen(self) -> None:
        """From now on note whether it writes anything to its log, for which there is room."""
        for pipe in self.pipes:
            pipe.drain()
            pipe.heard = False

    def has_spoken(self) -> bool:
        """Whether it has written anything since then."""
        return any(pipe.heard for pipe in self.pipes)

    def kill(self, reason: str) -> None:
        """End the process now; its snapshot ends whatever it leaves behind."""
        self.reason, self.killed = reason, True
        if self.pidfd < 0:
            self._loop.call_soon(self._pool.ended, self)  # `forked` ends the process, if it ever comes to that
        self._signal(signal.SIGKILL)
        self._pool.snapshot.fence.end(self.number)

    def why(self) -> str:
        """Why its process has ended. One that was told to leave and is gone in the midst of a call died of itself."""
        if self.reason and (self.killed or not self.running):
            return self.reason
        if self.reason is OUT_OF_MEMORY or self._pool.snapshot.fence.out_of_memory(self.number):
            return OUT_OF_MEMORY
        return CRASHED

    def _signal(self, signum: int) -> None:
        if self.pidfd >= 0:
            send_signal(self.pidfd, signum)

    # --- what the instance says

    def _read(self) -> None:
        """Take what has come; of an instance that has requests waiting, the answers to them as well."""
        more = True
        while more:
            if self._link.packets and len(self.running) > 1:
                more = self._read_waiting()
            else:
                more = self._take_packet(self._receive()) and self._link.packets and len(self.running) > 1

    def _read_waiting(self) -> bool:
        """Take all that is there before anything is done about it, so that its CPU time can be shared among it."""
        packets = [self._receive()]
        while packets[-1] and len(packets) < MOST_AHEAD:
            packets.append(self._receive())
        answers = sum([data[KIND_AT] in ENDS for data in packets if data])
        self.meter.answers = answers if answers > 1 else 0
        more = all(self._take_packet(data) for data in packets)
        self.meter.answers = 0
        return more

    def _receive(self) -> bytes | None:
        """What has come, b"" at the end of the socket, None where nothing has."""
        if self.state != "starting":
            return self._link.receive()
        data, pid = self._link.receive_first()
        if pid and self.pidfd < 0:
            self.meter.watch(pid)
        return data

    def _take_packet(self, data: bytes | None) -> bool:
        """Act on what was read; False when there was nothing, or the instance is over."""
        if data is None:
            return False
        if not data and self.pidfd < 0:
            self._link.ignore()  # its snapshot is about to say whether it was made at all
            return False
        if not data:
            self._pool.ended(self)
            return False
        if self._inbox:
            data = self._inbox + data
        position, end = 0, len(data)
        endings: list[tuple[int, int]] = []
        while end - position >= wire.HEADER_BYTES:
            length, stream, kind = wire.HEADER.unpack_from(data, position)
            start = position + wire.HEADER_BYTES
            if length > MAX_FRAME_BYTES:
                self.kill("it sent a frame larger than any frame can be")
                return False
            if end - start < length:
                break
            position = start + length
            if kind == wire.END or kind == wire.DONE:
                endings.append((stream, kind))  # the next chunk of another stream does not wait for the book-keeping
            elif not self._take(stream, kind, data[start:position]):
                self.kill("it sent bytes that are not frames")
                return False
        self._inbox = data[position:] if position < end else b""
        for stream, kind in endings:
            if not self._take(stream, kind, b""):
                self.kill("it sent bytes that are not frames")
                return False
        return True

    def _take(self, stream: int, kind: int, payload: bytes) -> bool:
        """Act on one frame; False for what no instance of ours sends."""
        caller = self.running.get(stream)
        if caller is None:
            return (
                self._take_own(kind, payload) if not stream else stream <= self._streams
            )  # cancelled: frames were on their way
        if kind == wire.CHUNK:
            caller.chunk(payload)
        elif kind == wire.QUICK_ANSWER or kind == wire.ANSWER:
            self._pool.ahead.pace.answered(kind == wire.QUICK_ANSWER)
            caller.answer(*wire.part_head(payload))
        elif kind == wire.HEAD:
            self._pool.ahead.pace.answered(False)
            caller.head(wire.split_head(payload)[0])
        elif kind == wire.END:
            caller.end()
        elif kind == wire.FAIL:
            reason, _, text = payload.partition(b"\0")
            caller.fail(reason.decode("ascii", "replace"), text.decode(errors="replace"))
        elif kind == wire.BODY_CREDIT:
            caller.more_body(int.from_bytes(payload[:4], "big"))
        elif kind == wire.AFTER:
            caller.after()
        elif kind == wire.DONE:
            caller.done()
        elif kind == wire.BUSY:
            return self._busy(stream)
        else:
            return False
        return True

    def _take_own(self, kind: int, payload: bytes) -> bool:
        """Act on a frame about the process itself."""
        if kind == wire.HELLO and self.state in ("starting", "retiring") and not self._pool.parking.holds(self):
            self._pool.hello(self)
            return True
        if kind == wire.PONG:
            self._pool.watch.answered(self)
            return True
        return kind == wire.PARKED and self._pool.parking.ready(self, prompt=payload == b"\1")

    def _busy(self, stream: int) -> bool:
        """The process has read a request that it cannot serve yet, while another one runs.

        Of the eldest as well: `take_back` may have put it back behind one that the process read meanwhile.
        """
        if not self._link.packets or len(self.running) < 2:
            return False
        self._pool.ahead.returned(self, [self.running.pop(stream)])
        return True

    def release(self, stream: int) -> None:
        """The caller is finished with its stream."""
        if self.running.pop(stream, None) is not None:
            self._deaf.discard(stream)
            self._tells_stack = False
            self._pool.freed(self)
            if self._deaf:
                self._end_if_deaf()

    def doubt(self) -> None:
        """A handler is to stop at once; whether it will nobody knows yet, and so nobody new joins it."""
        self._pool.shun(self)

    def believe(self) -> None:
        """It has stopped."""
        self._pool.trust(self)

    def exhausted(self) -> None:
        """A handler had no memory left. What it was in the middle of, nobody knows: what else runs here may finish."""
        self._pool.recycle(self, OUT_OF_MEMORY)

    def give_up(self, stream: int, reason: str) -> None:
        """A handler does not stop: its process ends, at once or when nobody else runs in it."""
        self._deaf.add(stream)
        self._pool.recycle(self, reason)
        self._end_if_deaf()

    def _end_if_deaf(self) -> None:
        if self._deaf.issuperset(self.running):
            self.kill(self.reason or "its handlers do not stop")

    # --- its life

    def host_pid(self) -> int:
        """The number of its process outside the room; 0 until it has said anything, or its snapshot that it exists."""
        return max(pid_of(self.pidfd), 0) if self.pidfd >= 0 else self.meter.pid

    def step(self, event: lifecycle.Event) -> None:
        self.state = lifecycle.LIFE[self.state, event]

    def whose(self, said: str) -> str | None:
        """The id of the invocation that wrote a line, where that can be known, as the line says ("": nothing)."""
        if said and said in self._recent:
            return said
        # With one request at a time the last caller wrote it; with several nobody can know from outside.
        if self._pool.concurrency > 1:
            return self.only_id() if self.blocked or self._tells_stack else None
        return self.caller.id if self.caller is not None else None

    def only_id(self) -> str | None:
        """The id of the invocation that runs here, where there is no other that could be meant."""
        return next(iter(self.running.values())).id if len(self.running) == 1 else None

    def read_log(self) -> None:
        for pipe in self.pipes:
            pipe.read()

    def wake(self) -> None:
        """It was parked, and is wanted."""
        self.step("wake")
        self._signal(signal.SIGCONT)  # another instance of its function may have stopped it
        self.forked_s = monotonic()
        if self.prompt:
            self._loop.call_soon(self._awake)
        else:
            self.send(wire.frame(0, wire.WAKE))

    def _awake(self) -> None:
        if self.state == "starting":
            self._pool.hello(self)

    def forked(self, pidfd: int) -> None:
        """The process exists; its pidfd tells when it has ended."""
        self.pidfd = pidfd
        if self.meter.pid != (pid := pid_of(pidfd)):
            self.meter.watch(pid)  # a child of it has said hello, in a hook of the user's
        if self.state == "ended":
            end(pidfd)
            self.pidfd = -1
        elif self._link.packets:
            self._loop.add_reader(pidfd, self._pool.died, self)

    def read_rest(self) -> None:
        """Take all that the process has said."""
        while self.state != "ended" and self._take_packet(self._receive()):
            pass

    def clear_away(self) -> list[Caller]:
        """It is over: let go of all it had; returns whose requests it has not read."""
        # A process that closed its socket and lives on would serve nobody.
        self._signal(signal.SIGKILL)
        unread = self.never_read()
        self.close()
        self._loop.run_in_executor(None, lambda: shutil.rmtree(self.tmp, ignore_errors=True))
        return unread

    def close(self) -> None:
        """The process is gone: let go of everything that belonged to it."""
        self._link.close()
        for pipe in self.pipes:
            pipe.finish()
        if self.pidfd >= 0:
            if self._link.packets:
                self._loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

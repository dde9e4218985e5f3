"""The server's log: access lines, what functions print, failures. On stderr for people, and kept for `lampyr logs`.

What a request has to do for it is to add a tuple to a list. Secrets are masked, and lines made, for many at a time;
access lines are kept as facts, of which whoever reads them makes lines (logs/line.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from lampyr.core import endings
from lampyr.core.flow import SHUT_S, Flow
from lampyr.core.printable import printable
from lampyr.gateway.sources import Sources
from lampyr.gateway.terminal import Terminal
from lampyr.logs.line import Line, Served, Stamps, stamp

if TYPE_CHECKING:
    from lampyr.core.masking import Masker
    from lampyr.gateway.call import Call
    from lampyr.gateway.exchange import Exchange
    from lampyr.logs.writer import Writer

FLUSH_AFTER_S = 0.05
# More are not made into lines in one go: 64 take 0.2 ms, as many requests a tenth of that, in which nobody is served.
AT_ONCE: Final = 64
REQUESTS_AT_ONCE: Final = 256
# So many requests are shown of those that end within FLUSH_AFTER_S: nobody reads thousands of lines a second.
SHOWN = 50

# What `Served` has, in its order.
Row = tuple[int, str, str, str, int, str, bool, int, int | None]
# What is going to be a line: when (monotonic), function, id, who takes the secrets out (None: that is done), stream,
# level, message. Plain tuples, because there may be many.
Said = tuple[float, str | None, str | None, "Masker | None", str, str, "bytes | str | Batch"]

_encode = msgspec.json.Encoder().encode


class Batch:
    """Requests to one function that ended one after the other, without anything said of it between."""

    __slots__ = ("masker", "rows")

    def __init__(self, masker: Masker | None) -> None:
        self.masker = masker
        self.rows: list[Row] = []

    def text(self, latest: Masker | None) -> bytes:
        """The rows in JSON, without secrets. There is hardly ever one, and then nothing is done for each row."""
        text = _encode(self.rows)
        for masker in {latest, self.masker}:
            if masker and (b"%" in text or b"\\" in text or masker.spans(text)):
                requests = [f"{row[2]} {_path(row[3], masker)}".encode(errors="replace") for row in self.rows]
                found = [request.decode(errors="replace").partition(" ") for request in masker.lines(requests)]
                self.rows = [
                    (*row[:2], method, path, *row[4:]) for row, (method, _, path) in zip(self.rows, found, strict=True)
                ]
                text = _encode(self.rows)
        return text


class Log:
    """Collects what is said and writes it a few times a second; `writer` keeps it, as soon as there is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, terminal: Terminal | None = None) -> None:
        self._loop = loop
        self._terminal = terminal or Terminal()
        self._writer: Writer | None = None
        self._said: list[Said] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stamps = Stamps()
        self._names: dict[str | None, str] = {None: "null"}  # of functions, as JSON
        self._batches: dict[str, Batch] = {}  # of functions, to be added to
        self._shown = self._not_shown = 0  # requests, since the terminal was written to
        self._flows: dict[str, Flow] = {}
        self.masker: Masker | None = None  # of what is deployed now
        self.sources = Sources()

    def keep(self, writer: Writer) -> None:
        """From now on lines are kept there, those too that wait already."""
        self._writer = writer

    def _say(
        self, function: str | None, id: str | None, stream: str, level: str, message: bytes | str, masker: Masker | None
    ) -> None:
        if function is not None:
            self._batches.pop(function, None)  # its lines stay in their order
        self._add((monotonic(), function, id, masker, stream, level, message))

    def _add(self, one: Said) -> None:
        said = self._said
        said.append(one)
        if self._timer is None:
            self._wake()
        if len(said) >= AT_ONCE:
            self._make_lines()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self.flush)

    # --- what is said

    def platform(self, text: str, function: str | None = None, id: str | None = None, level: str = "") -> None:
        """Something of the platform's own; "warning: " and "error: " at its beginning say how bad it is."""
        if not level:
            word = text.partition(":")[0]
            level = word if word in ("warning", "error") else "info"
        self._say(function, id, "platform", level, text, self.masker)

    def note(self, text: str, function: str | None = None) -> None:
        """Something that is kept and not shown: who looks at the terminal sees it anyway. No secret may be in it."""
        if self._writer is not None:
            line = Line(stamp(time.time()), None, function, "platform", "info", text)
            self._writer.add(function, [line.json().encode() + b"\n"], 1)
            self._wake()

    def output(
        self, function: str, id: str | None, stream: str, level: str, line: bytes, masker: Masker | None
    ) -> None:
        """A line that a function wrote to stdout or stderr, unless it has written too much."""
        flow = self._flow(function)
        if flow.lets_through(len(line), monotonic(), stderr=stream == "stderr"):
            self._say(function, id, stream, level, self.sources.in_line(line), masker)
        elif flow.missing == 1:
            self._loop.call_later(SHUT_S, self._tell_missing, function, flow)

    def expect_stack(self, function: str) -> None:
        """Keep the stack that comes now, however much the function has written."""
        self._flow(function).expect_stack()

    def _flow(self, function: str) -> Flow:
        flow = self._flows.get(function)
        if flow is None:
            flow = self._flows[function] = Flow()
        return flow

    def _tell_missing(self, function: str, flow: Flow) -> None:
        count, flow.missing = flow.missing, 0
        text = f"warning: {count} line{'s' if count > 1 else ''} missing here: it writes more than is kept"
        self.platform(text, function)

    def access(self, call: Call, now_s: float) -> None:
        """One line per invocation: what, how it ended, how long it took, and how long `after` went on."""
        exchange, after_us = call.exchange, None
        if call.responded_s:
            after_us = int((now_s - call.responded_s) * 1e6)
        path, took_us = _without_query(exchange.target), int((now_s - exchange.started) * 1e6)
        at_us = int(now_s * 1e6)
        row = (at_us, call.id, exchange.method, path, call.status, call.outcome, call.cold, took_us, after_us)
        self._ended(call.route, call.masker, now_s, row)

    def not_let_in(self, exchange: Exchange, status: int, function: str, outcome: str) -> None:
        """One line per request that was too much. There may be a flood of them."""
        now_s = monotonic()
        path, took_us = _without_query(exchange.target), int((now_s - exchange.started) * 1e6)
        row = (int(now_s * 1e6), exchange.id, exchange.method, path, status, outcome, False, took_us, None)
        self._ended(function, self.masker, now_s, row)

    def _ended(self, function: str, masker: Masker | None, now_s: float, row: Row) -> None:
        batch = self._batches.get(function)
        if batch is None or batch.masker is not masker:
            batch = self._batches[function] = Batch(masker)
            self._add((now_s, function, None, masker, "access", "", batch))
        rows = batch.rows
        rows.append(row)
        if len(rows) >= REQUESTS_AT_ONCE:
            self._make_lines()

    def refused(self, exchange: Exchange, status: int, function: str | None = None) -> None:
        """One line per error that no function had a part in: the client got an id, and looks for it here."""
        path = _path(exchange.target, self.masker)
        self._turned_away(exchange.method, path, status, exchange.started, exchange.id, function)

    def turned_away(self, method: str, path: str, status: int, started: float, id: str) -> None:
        """One line per request that the front door has refused, by what could be read of it."""
        self._turned_away(method, path, status, started, id, None)

    def _turned_away(self, method: str, path: str, status: int, started: float, id: str, function: str | None) -> None:
        message = f"{method} {path} {status} {(monotonic() - started) * 1000:.1f} ms"
        self._say(function, id, "access", "error" if status >= 500 else "info", message, self.masker)

    def failure(self, call: Call, text: str) -> None:
        """A handler's traceback, under the invocation's id."""
        self._say(call.route, call.id, "traceback", "error", self.sources.in_text(text.rstrip("\n")), call.masker)

    def unimportable(self, function: str, text: str) -> None:
        """The traceback of an import that has failed."""
        self._say(function, None, "traceback", "error", self.sources.in_text(text.rstrip("\n")), self.masker)

    def ended(self, call: Call, why: str) -> None:
        """The process of a call was ended for a reason of ours."""
        self.platform(f"the process ended: {why}", call.route, call.id, "error")

    def crash(self, call: Call, status: int | None) -> None:
        """The process of a call has ended by itself, with this exit status where that is known."""
        how = "ended" if status is None else f"{endings.told(status)}\nhint: {endings.hint(status)}"
        self.platform(f"the process {how}", call.route, call.id, "error")

    # --- lines

    def _make_lines(self) -> None:
        said, self._said = self._said, []
        self._batches.clear()
        begun_s = time.time() - monotonic()  # when the monotonic clock showed nothing
        kept: dict[str | None, list[bytes]] = {}
        counts: dict[str | None, int] = {}
        shown: list[str] = []
        of = self._stamps.of
        for (at_s, function, id, _, stream, level, message), text in zip(said, _texts(said, self.masker), strict=True):
            name = self._names.get(function) or self._name(function)
            texts = kept.setdefault(function, [])
            if isinstance(message, Batch):
                head = f'{{"function":{name},"stream":"access","since_us":{int(begun_s * 1e6)},"served":'
                texts.append(b"%b%b}\n" % (head.encode(), message.text(self.masker)))
                shown += self._requests(message.rows)
                counts[function] = counts.get(function, 0) + len(message.rows)
                continue
            shown += _shown(function, id, stream, text)
            stream = "platform" if stream == "traceback" else stream
            whose = f'"{id}"' if id else "null"
            # As Line.json, in a sixth of its time, with a line break.
            line = (
                f'{{"time":"{of(begun_s + at_s)}","id":{whose},"function":{name},"stream":"{stream}","level":"{level}",'
                f'"message":{quoted(text)}}}\n'
            )
            texts.append(line.encode())
            counts[function] = counts.get(function, 0) + 1
        self._terminal.lines(shown)
        if self._writer is not None:
            for function, texts in kept.items():
                self._writer.add(function, texts, counts[function])

    def _requests(self, rows: list[Row]) -> list[str]:
        """As people see them, unless there are too many: made of what is printable."""
        shown = rows[: max(SHOWN - self._shown, 0)]
        self._shown += len(shown)
        self._not_shown += len(rows) - len(shown)
        return [f"{row.message} {row.id}" for row in map(Served._make, shown)]

    def _name(self, function: str | None) -> str:
        """A function in JSON."""
        name = self._names[function] = quoted(function or "")
        return name

    def flush(self) -> None:
        """Write what has been said."""
        self._timer = None
        if self._said:
            self._make_lines()
        if self._not_shown:
            self._terminal.lines([f"lampyr: {self._not_shown} more requests, which `lampyr logs` shows"])
        self._shown = self._not_shown = 0
        written = self._terminal.write()
        if self._writer is not None:
            written = self._writer.flush() and written
        if not written:
            self._wake()

    def close(self) -> None:
        """Write what can still be written."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        if self._writer is not None:
            self._writer.close()


def _shown(function: str | None, id: str | None, stream: str, text: str) -> list[str]:
    """As people see it."""
    whose = " ".join([one for one in (function, id) if one])
    first, *more = [printable(line) for line in text.split("\n")]
    if stream == "access":
        return [f"{first} {id}"]
    if stream != "platform":
        return [f"{whose} | {line}" for line in (first, *more)]
    if whose:
        word, colon, rest = first.partition(": ")
        first = f"{word}: {whose}: {rest}" if colon and word in ("warning", "error") else f"{whose}: {first}"
    return [f"lampyr: {first}", *more]


def _texts(said: Sequence[Said], latest: Masker | None) -> list[str]:
    """The messages without secrets; those of one masker are looked at together, as there is hardly ever a secret.

    What a function says that began under an earlier deployment is looked at with its masker and with the latest.
    """
    messages = ["" if isinstance(one[6], Batch) else one[6] for one in said]
    for masker in {latest, *[one[3] for one in said]}:
        if masker:
            everybody = masker is latest
            of_it = [at for at, one in enumerate(said) if one[3] is masker or (everybody and one[3] is not None)]
            before = [_bytes(messages[at]) for at in of_it]
            after = masker.lines(before)
            if after is not before:
                for at, message in zip(of_it, after, strict=True):
                    messages[at] = message
    return [one if isinstance(one, str) else one.decode(errors="replace") for one in messages]


def _bytes(message: bytes | str) -> bytes:
    return message.encode(errors="replace") if isinstance(message, str) else message


def _path(target: str, masker: Masker | None) -> str:
    """The path as the client wrote it, which is printable; where a secret is in it, however escaped, without that."""
    path = _without_query(target)
    if "%" in path and masker:
        return masker.mask_escaped(path.encode()).decode(errors="replace")
    return path


def _without_query(target: str) -> str:
    return target.partition("?")[0] if "?" in target else target

"""The server's log: access lines, what functions print, failures. On stderr for people, and kept for `lampyr logs`.

What a request has to do for it is to add a tuple to a list. Secrets are masked, and lines made, for many at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from lampyr.core import endings
from lampyr.core.flow import SHUT_S, Flow
from lampyr.core.printable import printable
from lampyr.gateway.terminal import Terminal
from lampyr.logs.line import Stamps

if TYPE_CHECKING:
    from lampyr.core.masking import Masker
    from lampyr.gateway.call import Call
    from lampyr.gateway.exchange import Exchange
    from lampyr.logs.writer import Writer

FLUSH_AFTER_S = 0.02
# More are not made into lines in one go: 64 take 0.2 ms, in which nobody is served.
AT_ONCE = 64
_BAD = frozenset({"error", "timeout", "crashed"})


class Said(NamedTuple):
    """What is going to be a line. `masker` takes the secrets out; None where that is done."""

    time_s: float
    function: str | None
    id: str | None
    stream: str
    level: str
    message: bytes
    masker: Masker | None


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
        self._flows: dict[str, Flow] = {}
        self.masker: Masker | None = None  # of what is deployed now

    def keep(self, writer: Writer) -> None:
        """From now on lines are kept there, those too that wait already."""
        self._writer = writer

    def _say(self, said: Said) -> None:
        self._said.append(said)
        if self._timer is None:
            self._wake()
        if len(self._said) >= AT_ONCE:
            self._make_lines()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    # --- what is said

    def platform(self, text: str, function: str | None = None, id: str | None = None, level: str = "") -> None:
        """Something of the platform's own; "warning: " and "error: " at its beginning say how bad it is."""
        if not level:
            word = text.partition(":")[0]
            level = word if word in ("warning", "error") else "info"
        message = text.encode(errors="replace")
        self._say(Said(time.time(), function, id, "platform", level, message, self.masker))

    def note(self, text: str, function: str | None = None) -> None:
        """Something that is kept and not shown: who looks at the terminal sees it anyway. No secret may be in it."""
        said = Said(time.time(), function, None, "platform", "info", b"", None)
        if self._writer is not None:
            self._writer.add(function, [self._json(said, text)])
            self._wake()

    def output(
        self, function: str, id: str | None, stream: str, level: str, line: bytes, masker: Masker | None
    ) -> None:
        """A line that a function wrote to stdout or stderr, unless it has written too much."""
        flow = self._flows.get(function)
        if flow is None:
            flow = self._flows[function] = Flow()
        now_s = time.time()
        if flow.lets_through(len(line), now_s):
            self._say(Said(now_s, function, id, stream, level, line, masker))
        elif flow.missing == 1:
            self._loop.call_later(SHUT_S, self._tell_missing, function, flow)

    def _tell_missing(self, function: str, flow: Flow) -> None:
        count, flow.missing = flow.missing, 0
        text = f"warning: {count} line{'s' if count > 1 else ''} missing here: it writes more than is kept"
        self.platform(text, function)

    def access(self, call: Call) -> None:
        """One line per invocation: what, how it ended, how long it took, and how long `after` went on."""
        exchange, outcome, after_s = call.exchange, call.outcome, call.after_s
        took_ms = (monotonic() - exchange.started) * 1000
        more = " cold" if call.cold else ""
        if after_s is not None:
            took_ms -= after_s * 1000
            more += f", after() {after_s * 1000:.1f} ms"
        ended = "" if outcome == "ok" else f" {outcome}"
        path = exchange.target.partition("?")[0]  # printable: the front door refuses anything else
        message = f"{exchange.method} {path} {call.status or '-'}{ended} {took_ms:.1f} ms{more}"
        level = "error" if call.status >= 500 or outcome in _BAD else "info"
        route = call.pool.function.route
        self._say(Said(time.time(), route, call.id, "access", level, message.encode(), call.masker))

    def refused(self, exchange: Exchange, status: int, function: str | None = None) -> None:
        """One line per error that no function had a part in: the client got an id, and looks for it here."""
        path = exchange.target.partition("?")[0]
        self._turned_away(exchange.method, path, status, exchange.started, exchange.id, function)

    def turned_away(self, method: str, path: str, status: int, started: float, id: str) -> None:
        """One line per request that the front door has refused, by what could be read of it."""
        self._turned_away(method, path, status, started, id, None)

    def _turned_away(self, method: str, path: str, status: int, started: float, id: str, function: str | None) -> None:
        message = f"{method} {path} {status} {(monotonic() - started) * 1000:.1f} ms".encode()
        level = "error" if status >= 500 else "info"
        self._say(Said(time.time(), function, id, "access", level, message, self.masker))

    def failure(self, call: Call, text: str) -> None:
        """A handler's traceback, under the invocation's id."""
        message = text.rstrip("\n").encode(errors="replace")
        self._say(Said(time.time(), call.pool.function.route, call.id, "traceback", "error", message, call.masker))

    def unimportable(self, function: str, text: str) -> None:
        """The traceback of an import that has failed."""
        message = text.rstrip("\n").encode(errors="replace")
        self._say(Said(time.time(), function, None, "traceback", "error", message, self.masker))

    def ended(self, call: Call, why: str) -> None:
        """The process of a call was ended for a reason of ours."""
        self.platform(f"the process ended: {why}", call.pool.function.route, call.id, "error")

    def crash(self, call: Call, status: int | None) -> None:
        """The process of a call has ended by itself, with this exit status where that is known."""
        how = "ended" if status is None else f"{endings.told(status)}\nhint: {endings.hint(status)}"
        self.platform(f"the process {how}", call.pool.function.route, call.id, "error")

    # --- lines

    def _make_lines(self) -> None:
        said, self._said = self._said, []
        messages = _masked(said, self.masker)
        kept: dict[str | None, list[str]] = {}
        for one, message in zip(said, messages, strict=True):
            text = message.decode(errors="replace")
            self._show(one, text)
            lines = kept.get(one.function)
            if lines is None:
                lines = kept[one.function] = []
            lines.append(self._json(one, text))
        if self._writer is not None:
            for function, lines in kept.items():
                self._writer.add(function, lines)

    def _json(self, said: Said, text: str) -> str:
        """As Line.json (1 µs instead of 5), with its line break."""
        time_s, function, id, stream, level, _, _ = said
        name = self._names.get(function)
        if name is None:
            name = self._names[function] = quoted(function or "")
        if stream == "traceback":
            stream = "platform"
        whose = f'"{id}"' if id else "null"
        return (
            f'{{"time":"{self._stamps.of(time_s)}","id":{whose},"function":{name},'
            f'"stream":"{stream}","level":"{level}","message":{quoted(text)}}}\n'
        )

    def _show(self, said: Said, text: str) -> None:
        """On the terminal, in a line or more."""
        line, function, id = self._terminal.line, said.function, said.id
        if said.stream == "access":
            line(f"{printable(text)} {id}")
        elif said.stream == "platform":
            whose = "" if function is None else f"{function}: " if id is None else f"{function} {id}: "
            first, *more = text.split("\n")
            word, colon, rest = first.partition(": ")
            if whose and colon and word in ("warning", "error"):
                line(f"lampyr: {word}: {whose}{printable(rest)}")
            else:
                line(f"lampyr: {whose}{printable(first)}")
            for one in more:
                line(printable(one))
        else:
            whose = f"{function} | " if id is None else f"{function} {id} | "
            for one in text.split("\n"):
                line(whose + printable(one))

    def _flush(self) -> None:
        self._timer = None
        if self._said:
            self._make_lines()
        written = self._terminal.write()
        if self._writer is not None:
            written = self._writer.flush() and written
        if not written:
            self._wake()

    def close(self) -> None:
        """Write what can still be written."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        if self._writer is not None:
            self._writer.close()


def _masked(said: Sequence[Said], latest: Masker | None) -> list[bytes]:
    """The messages without secrets; those of one masker are looked at together, as there is hardly ever a secret.

    What a function says that began under an earlier deployment is looked at with its masker and with the latest.
    """
    messages = [one.message for one in said]
    for masker in {id(one): one for one in (*(one.masker for one in said), latest)}.values():
        if masker:
            of_it = [
                at
                for at, one in enumerate(said)
                if one.masker is masker or (masker is latest and one.masker is not None)
            ]
            for at, message in zip(of_it, masker.lines([messages[at] for at in of_it]), strict=True):
                messages[at] = message
    return messages

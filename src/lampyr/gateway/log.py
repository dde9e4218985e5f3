"""The server's log: access lines, what functions print, failures. On stderr for people, and kept for `lampyr logs`.

What a request has to do for it is to add a tuple to a list. Secrets are masked, and lines made, for many at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic
from typing import TYPE_CHECKING

from lampyr.core import endings
from lampyr.core.flow import SHUT_S, Flow
from lampyr.core.printable import printable
from lampyr.gateway.terminal import Terminal
from lampyr.logs.line import Line, Stamps, stamp

if TYPE_CHECKING:
    from lampyr.core.masking import Masker
    from lampyr.gateway.call import Call
    from lampyr.gateway.exchange import Exchange
    from lampyr.logs.writer import Writer

FLUSH_AFTER_S = 0.02
# More are not made into lines in one go: 64 take 0.2 ms, in which nobody is served.
AT_ONCE = 64
_BAD = frozenset({"error", "timeout", "crashed"})


# Of an invocation, what a line is made of later, many in a row: method, target, status, outcome, cold, seconds it took,
# seconds of `after`.
Served = tuple[str, str, int, str, bool, float, float | None]
# What is going to be a line: when (monotonic), function, id, who takes the secrets out (None: that is done), stream,
# level, message. Plain tuples, because there is one for each request.
Said = tuple[float, str | None, str | None, "Masker | None", str, str, bytes | str | Served]


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

    def _say(
        self, function: str | None, id: str | None, stream: str, level: str, message: bytes | str, masker: Masker | None
    ) -> None:
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
            self._writer.add(function, [line.json() + "\n"])
            self._wake()

    def output(
        self, function: str, id: str | None, stream: str, level: str, line: bytes, masker: Masker | None
    ) -> None:
        """A line that a function wrote to stdout or stderr, unless it has written too much."""
        flow = self._flows.get(function)
        if flow is None:
            flow = self._flows[function] = Flow()
        if flow.lets_through(len(line), monotonic()):
            self._say(function, id, stream, level, line, masker)
        elif flow.missing == 1:
            self._loop.call_later(SHUT_S, self._tell_missing, function, flow)

    def _tell_missing(self, function: str, flow: Flow) -> None:
        count, flow.missing = flow.missing, 0
        text = f"warning: {count} line{'s' if count > 1 else ''} missing here: it writes more than is kept"
        self.platform(text, function)

    def access(self, call: Call) -> None:
        """One line per invocation: what, how it ended, how long it took, and how long `after` went on."""
        exchange, after_s, now_s = call.exchange, call.after_s, monotonic()
        facts = (
            exchange.method,
            exchange.target,
            call.status,
            call.outcome,
            call.cold,
            now_s - exchange.started,
            after_s,
        )
        said = self._said
        said.append((now_s, call.pool.function.route, call.id, call.masker, "access", "", facts))
        if self._timer is None:
            self._wake()
        if len(said) >= AT_ONCE:
            self._make_lines()

    def not_let_in(self, exchange: Exchange, status: int, function: str, outcome: str) -> None:
        """One line per request that was too much. There may be a flood of them, so it is made into text later."""
        now_s = monotonic()
        facts = (exchange.method, exchange.target, status, outcome, False, now_s - exchange.started, None)
        self._add((now_s, function, exchange.id, self.masker, "access", "", facts))

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
        self._say(call.pool.function.route, call.id, "traceback", "error", text.rstrip("\n"), call.masker)

    def unimportable(self, function: str, text: str) -> None:
        """The traceback of an import that has failed."""
        self._say(function, None, "traceback", "error", text.rstrip("\n"), self.masker)

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
        begun_s = time.time() - monotonic()  # when the monotonic clock showed nothing
        kept: dict[str | None, list[str]] = {}
        shown: list[str] = []
        of, names, before = self._stamps.of, self._names, None
        lines: list[str] = []
        for (at_s, function, id, _, stream, level, message), text in zip(said, _texts(said, self.masker), strict=True):
            if stream == "access":
                level = level or _level(message)
                shown.append(f"{text} {id}")  # made of what is printable
            else:
                shown += _shown(function, id, stream, text)
                stream = "platform" if stream == "traceback" else stream
            if function != before or not lines:
                before = function
                lines = kept.setdefault(function, [])
                name = names.get(function) or self._name(function)
            whose = f'"{id}"' if id else "null"
            # As Line.json, in a sixth of its time, with a line break.
            lines.append(
                f'{{"time":"{of(begun_s + at_s)}","id":{whose},"function":{name},"stream":"{stream}","level":"{level}",'
                f'"message":{quoted(text)}}}\n'
            )
        self._terminal.lines(shown)
        if self._writer is not None:
            for function, lines in kept.items():
                self._writer.add(function, lines)

    def _name(self, function: str | None) -> str:
        """A function in JSON."""
        name = self._names[function] = quoted(function or "")
        return name

    def flush(self) -> None:
        """Write what has been said."""
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
        self.flush()
        if self._writer is not None:
            self._writer.close()


def _text(served: Served, masker: Masker | None) -> str:
    """What there is to say of an invocation."""
    method, target, status, outcome, cold, took_s, after_s = served
    more = " cold" if cold else ""
    if after_s is not None:
        took_s -= after_s
        more += f", after() {after_s * 1000:.1f} ms"
    ended = "" if outcome == "ok" else f" {outcome}"
    path = _path(target, masker)
    return f"{method} {path} {status or '-'}{ended} {took_s * 1000:.1f} ms{more}"


def _level(message: bytes | str | Served) -> str:
    """How bad the end of an invocation is."""
    return "error" if isinstance(message, tuple) and (message[2] >= 500 or message[3] in _BAD) else "info"


def _shown(function: str | None, id: str | None, stream: str, text: str) -> list[str]:
    """What is no access line, as people see it."""
    whose = " ".join([one for one in (function, id) if one])
    first, *more = [printable(line) for line in text.split("\n")]
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
    messages = [_text(one[6], one[3]) if isinstance(one[6], tuple) else one[6] for one in said]
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
    path = target.partition("?")[0]
    if "%" in path and masker:
        return masker.mask_escaped(path.encode()).decode(errors="replace")
    return path

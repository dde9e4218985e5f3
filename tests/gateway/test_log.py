"""Lines as the gateway makes them: many at a time; but for access lines exactly what `Line.json` would have made."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import inside
import pytest
from serving import until

from lampyr.core.masking import Masker
from lampyr.gateway.call import Call
from lampyr.gateway.log import AT_ONCE, SHOWN, Log
from lampyr.gateway.terminal import MAX_WAITING_LINES, Terminal
from lampyr.logs import files, reading
from lampyr.logs.line import parse
from lampyr.logs.reading import Query
from lampyr.logs.writer import Writer

SECRET = "correct-horse-battery-staple"
MASKER, OTHER = Masker([SECRET]), Masker(["another secret of another deployment"])


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


class Place:
    """A log with its terminal, which is a pipe, and its files."""

    def __init__(self, folder: Path) -> None:
        self.started_s = time.time()
        self.loop = asyncio.new_event_loop()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK)
        self.log = Log(self.loop, Terminal(self._writer))
        self.folder = folder
        self.log.masker = MASKER
        self.log.keep(Writer(folder, 1 << 20, 30, lambda told: pytest.fail(told)))
        pool = inside.pool(self.loop, folder, max_duration=None)
        self._services = {masker: inside.service(pool, self.log, masker, folder) for masker in (MASKER, OTHER)}

    def call(self, path: str = "/x", masker: Masker = MASKER, **more: Any) -> Call:
        """One that has ended."""
        call = inside.call(self._services[masker], path)
        for name, value in {"status": 200, **more}.items():
            setattr(call, name, value)
        return call

    def shown(self) -> str:
        self.log.close()
        return os.read(self._reader, 1 << 20).decode()

    def kept(self, function: str | None) -> list[bytes]:
        return files.file(self.folder / files.folder_of(function), 1).read_bytes().splitlines(keepends=True)

    def close(self) -> None:
        self.loop.close()
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_lines_are_what_line_json_makes(place: Place) -> None:
    log = place.log
    log.output("/x", "i", "stdout", "warning", 'é "\x1b\u202e\ud7ff'.encode() + b"\xff\x00\x7f", None)
    log.failure(place.call(), "Traceback\n  File\nError: x\n")
    log.platform("warning: it\nhint: that", "/x", "i")
    place.shown()
    for text in place.kept("/x"):
        (line,) = parse(text)
        assert line.json().encode() + b"\n" == text
    messages = [line.message for line in reading.read(place.folder, Query())]
    assert messages[0] == 'é "\x1b\u202e\ud7ff\ufffd\x00\x7f'


def test_access_lines_are_kept_as_facts_and_read_as_lines(place: Place) -> None:
    place.log.access(place.call('/a"b\\c?q=1'), 1.25)
    place.log.access(place.call(status=0, outcome="client_closed", responded_s=1.5, cold=True), 2.0)
    place.log.output("/x", "j", "stdout", "info", b"said between", None)
    place.log.access(place.call(status=500, outcome="error"), time.monotonic())
    shown = place.shown().splitlines()
    kept = [json.loads(text) for text in place.kept("/x")]
    assert [[row[2:4] for row in one.get("served", [])] for one in kept] == [
        [["GET", '/a"b\\c'], ["GET", "/x"]],
        [],
        [["GET", "/x"]],
    ]
    first, second, between, third = found = list(reading.read(place.folder, Query()))
    assert first.message == 'GET /a"b\\c 200 1250.0 ms' and first.stream == "access" and first.function == "/x"
    assert second.message == "GET /x - client_closed 1500.0 ms cold, after() 500.0 ms"
    assert seconds(second.time) - seconds(first.time) == pytest.approx(0.75, abs=0.0011)
    assert between.message == "said between"
    assert third.message.startswith("GET /x 500 error ") and abs(place.started_s - seconds(third.time)) < 60
    assert shown == [
        *(f"{one.message} {one.id}" for one in (first, second)),
        "/x j | said between",
        f"{third.message} {third.id}",
    ]
    assert list(reading.read(place.folder, Query(level="error"))) == [third]
    assert reading.last(place.folder, Query(), 3) == found[1:]
    assert list(reading.read(place.folder, Query(id="j"))) == [between]


def test_of_thousands_of_requests_a_second_the_terminal_shows_how_many(place: Place) -> None:
    for number in range(3 * SHOWN):
        place.log.access(place.call(f"/{number}"), 1.0)
    place.log.flush()
    place.log.access(place.call("/last"), 1.0)
    *first, more, last = place.shown().splitlines()
    assert [one.split()[1] for one in first] == [f"/{number}" for number in range(SHOWN)]
    assert more == f"lampyr: {2 * SHOWN} more requests, which `lampyr logs` shows"
    assert last.startswith("GET /last ")
    assert len(list(reading.read(place.folder, Query()))) == 3 * SHOWN + 1


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("count", [1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_a_secret_is_masked_wherever_it_stands_in_a_batch(place: Place, before: int, count: int) -> None:
    log = place.log
    for number in range(count):
        if before:
            log.access(place.call("/x", OTHER if number % 2 else MASKER), 1.0)
        log.access(place.call(f"/{SECRET}/{number}"), 1.0)
        log.output("/x", None, "stdout", "info", f"{number} {SECRET}{SECRET} {number}".encode(), log.masker)
        log.output("/y", None, "stdout", "info", b"another secret of another deployment", OTHER)
        log.platform(f"error: {SECRET}", "/x" if before == 2 else None)
        log.failure(place.call(), f"one\n{SECRET}\nthree")
    shown = place.shown()
    kept = b"".join(place.kept("/x") + place.kept("/y"))
    assert SECRET not in shown and SECRET.encode() not in kept and b"another secret" not in kept
    assert b'"message":"%d ****** %d"' % (count - 1, count - 1) in kept
    assert shown.count("| three") == count


def test_base64_that_is_wrapped_over_lines_is_masked(place: Place) -> None:
    import base64

    secret = "a long secret, " * 8
    log = place.log
    masker = Masker([secret])
    for line in base64.encodebytes(b"before " + secret.encode() + b" and behind").splitlines():
        log.output("/x", "i", "stdout", "info", line, masker)
    place.shown()
    texts = [line.message for line in reading.read(place.folder, Query())]
    assert len(texts) == 3 and all(text.count("***") == 1 and len(text) < 40 for text in texts)


def test_a_terminal_that_nobody_reads_costs_lines_and_no_time(place: Place) -> None:
    log = place.log
    for _ in range(3 * MAX_WAITING_LINES):
        log.platform("x" * 100)
    log.flush()
    assert "\n" in os.read(place._reader, 1 << 20).decode()
    until(lambda: len(list(reading.read(place.folder, Query()))) > 1000, "lines that are kept")
    text = b""
    for _ in range(10_000):
        log.flush()
        try:
            text += os.read(place._reader, 1 << 20)
        except BlockingIOError:
            break
    assert b"log lines were dropped because nobody read them" in text

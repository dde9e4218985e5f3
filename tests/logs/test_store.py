"""The files of a log: written, rolled over, let go, torn by a kill, on a full disk; read, followed."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import until

from lampyr.logs import files, reading
from lampyr.logs.line import Line, Stamps, parse, stamp
from lampyr.logs.reading import Follower, Query
from lampyr.logs.roll import FILES, Roll, forget_before
from lampyr.logs.writer import MAX_WAITING_BYTES, Writer

MIB = 1024 * 1024


def line(
    message: str, function: str | None = "/x", at: float = 1e9, id: str | None = None, level: str = "info"
) -> Line:
    return Line(stamp(at), id, function, "stdout", level, message)


def text(*lines: Line) -> bytes:
    return b"".join(one.json().encode() + b"\n" for one in lines)


def put(root: Path, *lines: Line, keep_bytes: int = MIB) -> None:
    for one in lines:
        Roll(root / files.folder_of(one.function), keep_bytes).write(text(one))


def messages(root: Path, query: Query | None = None) -> list[str]:
    return [one.message for one in reading.read(root, query or Query())]


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, MIB, 30, lambda told: pytest.fail(told))


def test_a_line_is_one_line_of_ascii_and_comes_back_as_it_was() -> None:
    said = line("\x1b[31m\u202eé\n\ud800\x00\x9b", function="/äö/[id]")
    written = said.json()
    assert written.isascii() and "\n" not in written and written.isprintable()
    assert parse(written.encode()) == [said]
    assert list(json.loads(written)) == ["time", "id", "function", "stream", "level", "message"]


@pytest.mark.parametrize(
    "torn", [b"", b"{", b'{"time":"x"}', b"\x00\x00", b"null", b"[]", b'"x"', b"\xff", b'{"served":[[1]]}']
)
def test_what_is_no_line_is_passed_over(torn: bytes) -> None:
    assert parse(torn) == []


def test_access_lines_in_microseconds_and_those_of_an_earlier_lampyr_in_seconds_read_the_same() -> None:
    rows = [["a" * 24, "GET", "/x", 200, "ok", False], ["b" * 24, "POST", "/y", 0, "client_closed", True]]
    served = [[1_250_000, *rows[0], 2_500, None], [2_000_000, *rows[1], 1_500_000, 500_000]]
    found = parse(json.dumps({"function": "/x", "stream": "access", "since_us": 10**15, "served": served}).encode())
    served = [[1.25, *rows[0], 0.0025, None], [2.0, *rows[1], 1.5, 0.5]]
    earlier = parse(json.dumps({"function": "/x", "stream": "access", "since": 1e9, "served": served}).encode())
    assert [(one.time, one.message) for one in found] == [
        ("2001-09-09T01:46:41.250Z", "GET /x 200 2.5 ms"),
        ("2001-09-09T01:46:42.000Z", "POST /y - client_closed 1000.0 ms cold, after() 500.0 ms"),
    ]
    assert earlier == found


def test_times_sort_as_text_and_are_the_same_made_either_way() -> None:
    stamps = Stamps()
    times = [0.0, 0.9994, 1.0, 1e9 + 0.001, 1e9 + 0.5, 1_764_181_107.123, 4e9]
    assert [stamps.of(one) for one in times] == sorted(stamps.of(one) for one in times)
    for one in times:
        assert abs(float(f"0{stamps.of(one)[19:-1]}") - one % 1) < 0.001 and stamps.of(one)[:19] == stamp(one)[:19]


ROUTES = ["/", "/api/chat", "/[id]", "/[[...all]]", "/a%2Fb", "/äö", "/" + "long" * 100, "/..", "/.", "/server", "/a b"]


def test_every_function_has_a_folder_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, *(line(route, route) for route in ROUTES), line("nobody's", None))
    for route in ROUTES:
        assert messages(tmp_path, Query(function=route)) == [route]
    assert len(files.folders(tmp_path)) == len(ROUTES) + 1
    assert set(ROUTES) - set(reading.functions(tmp_path)) == {ROUTES[6]}


def test_lines_of_all_functions_come_in_the_order_of_time(tmp_path: Path) -> None:
    put(tmp_path, *(line(str(at), f"/{at % 3}", 1e9 + at) for at in range(30)))
    assert messages(tmp_path) == [str(at) for at in range(30)]
    assert [one.message for one in reading.last(tmp_path, Query(), 4)] == ["26", "27", "28", "29"]


def test_a_query_filters(tmp_path: Path) -> None:
    put(tmp_path, line("a", id="1"), line("b", level="error", at=1e9 + 5), line("c", function=None, level="critical"))
    assert messages(tmp_path, Query(id="1")) == ["a"]
    assert messages(tmp_path, Query(level="error")) == ["c", "b"]
    assert messages(tmp_path, Query(level="critical")) == ["c"]
    assert messages(tmp_path, Query(since=stamp(1e9 + 1))) == ["b"]
    assert messages(tmp_path, Query(function="/x")) == ["a", "b"]
    assert messages(tmp_path, Query(contains="b")) == ["b"]
    assert messages(tmp_path, Query(function="/nobody")) == []


def test_an_id_says_when_it_began_and_older_files_are_not_opened(tmp_path: Path) -> None:
    id = f"{int(2e9 * 1000):011x}" + "0" * 13
    put(tmp_path, line("old", id=id))
    file = files.file(tmp_path / files.folder_of("/x"), 1)
    assert messages(tmp_path, Query(id=id)) == []  # nothing of an invocation is written before it arrives
    os.utime(file, (2e9, 2e9))
    assert messages(tmp_path, Query(id=id)) == ["old"]


def test_the_eldest_files_go_and_about_so_much_is_kept(tmp_path: Path) -> None:
    roll, keep_bytes = Roll(tmp_path / "%2Fx", 64 * 1024), 64 * 1024
    for number in range(5000):
        roll.write(text(line(f"{number}")))
    sizes = [entry.stat().st_size for entry in os.scandir(tmp_path / "%2Fx")]
    assert keep_bytes - 2 * keep_bytes // FILES < sum(sizes) <= keep_bytes
    kept = messages(tmp_path)
    assert kept == [str(number) for number in range(5000 - len(kept), 5000)]
    assert reading.has_forgotten(tmp_path, Query())


def test_old_files_go_by_their_age_and_empty_folders_with_them(tmp_path: Path) -> None:
    put(tmp_path, line("old"), line("new", "/y"))
    old = files.file(tmp_path / "%2Fx", 1)
    os.utime(old, (1e9, 1e9))
    forget_before(tmp_path, 1.5e9)
    assert files.folders(tmp_path) == ["%2Fy"]


def test_a_torn_end_costs_its_own_line_only(tmp_path: Path) -> None:
    put(tmp_path, line("whole"))
    file = files.file(tmp_path / "%2Fx", 1)
    with open(file, "ab") as content:
        content.write(text(line("torn"))[:-20])
    follower = Follower(tmp_path, Query())
    assert messages(tmp_path) == ["whole"]
    assert [one.message for one in follower.latest(9)] == ["whole"]
    put(tmp_path, line("after"))
    assert messages(tmp_path) == ["whole", "after"]
    assert [one.message for one in follower.poll()] == ["after"]


def test_a_follower_goes_on_through_new_files_new_functions_and_emptied_folders(tmp_path: Path) -> None:
    put(tmp_path, line("before"))
    follower = Follower(tmp_path, Query())
    assert follower.poll() == []
    roll = Roll(tmp_path / "%2Fx", 8192)
    seen, sent = [], []
    for number in range(2000):
        roll.write(text(line(f"{number}", at=1e9 + number)))
        sent.append(f"{number}")
        if number % 7 == 0:
            seen += [one.message for one in follower.poll()]
    put(tmp_path, line("other", "/new"))
    seen += [one.message for one in follower.poll()]
    assert [one for one in seen if one != "other"] == sent and seen.count("other") == 1
    for name in files.folders(tmp_path):
        for number in files.numbers(tmp_path / name):
            files.file(tmp_path / name, number).unlink()
    assert follower.poll() == []
    put(tmp_path, line("again"))
    assert [one.message for one in follower.poll()] == ["again"]


def test_a_follower_sees_a_line_only_when_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path, Query())
    put(tmp_path, line("first"))
    file = files.file(tmp_path / "%2Fx", 1)
    whole = text(line("second"))
    for at in range(len(whole)):
        with open(file, "ab") as content:
            content.write(whole[at : at + 1])
        assert [one.message for one in follower.poll()] == (
            ["first"] if at == 0 else ["second"] if at == len(whole) - 1 else []
        )


def test_a_writer_writes_what_it_is_given_in_order(tmp_path: Path, writer: Writer) -> None:
    for number in range(1000):
        writer.add("/x" if number % 2 else None, [line(str(number), at=1e9 + number).json().encode() + b"\n"], 1)
        if number % 10 == 0:
            writer.flush()
    writer.close()
    assert messages(tmp_path) == [str(number) for number in range(1000)]


def test_a_function_that_says_more_than_the_disk_takes_loses_its_own_lines(tmp_path: Path, writer: Writer) -> None:
    long = line("x" * 1000).json().encode() + b"\n"
    for _ in range(2 * MAX_WAITING_BYTES // len(long)):  # and never a flush
        writer.add("/x", [long], 1)
    writer.add("/y", [line("mine", "/y").json().encode() + b"\n"], 1)
    writer.close()
    kept = messages(tmp_path, Query(function="/x"))
    assert kept[-1].endswith("lines are missing here: the disk is too slow")
    count = int(kept[-1].split()[0])
    assert len(kept) - 1 + count == 2 * MAX_WAITING_BYTES // len(long)
    assert messages(tmp_path, Query(function="/y")) == ["mine"]


def test_a_full_disk_costs_lines_and_a_mark_stands_for_them(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"no tmpfs can be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        told: list[str] = []
        writer = Writer(folder, MIB, 30, told.append)
        rubbish = folder / "rubbish"
        rubbish.write_bytes(b"x" * 40_000)
        sent = [line(f"{number:04} {'x' * 200}", at=1e9 + number) for number in range(300)]
        for number, one in enumerate(sent):
            writer.add("/x", [one.json().encode() + b"\n"], 1)
            until(writer.flush, "the line before")
            if number == 250:
                until(writer.flush, "the line before")
                rubbish.unlink()
        writer.close()
        assert len(told) == 1 and told[0].startswith("error: the log cannot be written: [Errno 28] No space left")
        kept = messages(folder)
        marks = [one for one in kept if "missing here" in one]
        assert len(marks) == 1 and "they could not be written to the disk" in marks[0]
        lines = [one for one in kept if "missing here" not in one]
        assert lines[0].startswith("0000") and lines[-1].startswith("0299")
        assert len(lines) + int(marks[0].split()[0]) == len(sent)
    finally:
        libc.umount2(bytes(folder), 2)


KILLED = """
import sys, time
from pathlib import Path
from lampyr.logs.writer import Writer
from lampyr.logs.line import Line, stamp
writer = Writer(Path(sys.argv[1]), 1 << 20, 30, print)
number = 0
while True:
    line = Line(stamp(time.time()), str(number), "/x", "stdout", "info", "m" * 300)
    writer.add("/x", [line.json().encode() + b"\\n"], 1)
    number += 1
    if number % 50 == 0:
        writer.flush()
        print(number, flush=True)
"""


def test_a_writer_that_is_killed_anywhere_leaves_whole_lines(tmp_path: Path) -> None:
    for turn in range(5):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: list(reading.read(tmp_path, Query())), "a line in a file")
        time.sleep(0.05 + turn * 0.03)  # each time somewhere else
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = list(reading.read(tmp_path, Query()))
    # Where the disk was slower than the writer, a mark says how many lines are missing.
    assert found and {one.message for one in found if one.stream != "platform"} == {"m" * 300}
    bad = [
        one
        for name in files.numbers(tmp_path / "%2Fx")
        for one in files.file(tmp_path / "%2Fx", name).read_bytes().split(b"\n")
    ]
    assert sum(1 for one in bad if one and parse(one) is None) <= 5

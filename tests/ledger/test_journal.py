"""The journal: what was written is there, whatever happens to its writer, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr.ledger import journal, records
from lampyr.ledger.journal import Journal, Position
from lampyr.ledger.records import (
    Amended,
    Asked,
    Closed,
    Known,
    Opened,
    Origin,
    Record,
    Scaled,
    Spent,
    Started,
    Streamed,
    Traced,
)

IDS = st.integers(0, 2**96 - 1).map(lambda number: f"{number:024x}")
KEYS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63)
TIMES = st.floats(0, 1e9)
CLOSED = st.builds(
    Closed,
    id=IDS, origin=KEYS, status=st.integers(0, 599), cold=st.booleans(), outcome=st.sampled_from(records.OUTCOMES),
    queue_ms=TIMES, init_ms=TIMES, duration_ms=TIMES, cpu_ns=COUNTS, memory_kib=st.integers(0, 2**32 - 1), gb_s=TIMES,
    bytes_in=COUNTS, bytes_out=COUNTS,
)  # fmt: skip
HEX = st.binary(min_size=8, max_size=8).map(bytes.hex)
ORIGINS = st.builds(Origin, st.text(max_size=50), st.text(max_size=20), st.just(""))
SPENT = st.builds(
    Spent, IDS, st.just("") | IDS, st.text(max_size=50), st.text(max_size=20), st.text(max_size=80), COUNTS, COUNTS,
    TIMES, st.booleans(), TIMES,
)  # fmt: skip
RECORDS = st.one_of(
    CLOSED,
    SPENT,
    SPENT.map(Asked),
    st.builds(Opened, IDS, KEYS),
    st.builds(Amended, IDS, KEYS, COUNTS),
    st.builds(Traced, IDS, HEX.map(lambda one: one * 2), HEX, st.integers(0, 255)),
    st.builds(Streamed, IDS, KEYS, TIMES),
    st.builds(Scaled, COUNTS, st.text(max_size=50), COUNTS),
    ORIGINS.map(lambda o: Known(o.key, o)),
)


def written(record: Record) -> bytes:
    match record:
        case Closed():
            return records.closed(record)
        case Opened():
            return records.opened(record)
        case Amended():
            return records.amended(record)
        case Known():
            return records.known(record.origin)
        case Spent():
            return records.spent(record)
        case Asked():
            return records.asked(record)
        case Traced():
            return records.traced(record)
        case Streamed():
            return records.streamed(record)
        case Scaled():
            return records.scaled(record)
        case Started():
            return records.started()


def everything(folder: Path, position: Position = Position()) -> list[Record]:  # noqa: B008  a tuple, which nobody can change
    return [record for portion, _ in journal.read(folder, position) for record in portion]


@given(st.lists(RECORDS, max_size=20), st.integers(0, 200))
def test_what_was_written_is_read_up_to_where_it_is_whole(wanted: list[Record], cut: int) -> None:
    data = b"".join(map(written, wanted))
    found, _ = records.read(data[: len(data) - cut])
    assert found == wanted[: len(found)]
    if not cut:
        assert len(found) == len(wanted)
    assert records.read(data + bytes(500)) == (wanted, len(data))


@given(CLOSED, st.integers(1, 100))
def test_a_record_of_which_a_part_is_missing_is_none(row: Closed, kept: int) -> None:
    data = records.closed(row)
    assert records.read(data[:kept] + bytes(len(data) - kept) + records.started())[0] == [] or kept == len(data)


def test_it_goes_on_over_segments_and_from_any_position(tmp_path: Path) -> None:
    ledger = Journal(tmp_path, print, segment_bytes=4096)
    key = ledger.origin(Origin("/a", "d", ""))
    rows = [Opened(f"{number:024x}", key) for number in range(1000)]
    for row in rows:
        ledger.write(records.opened(row))
    assert everything(tmp_path) == [Started(), Known(key, Origin("/a", "d", "")), *rows]
    assert len(journal.numbers(tmp_path)) > 5
    seen: list[Record] = []
    for portion, position in journal.read(tmp_path, Position()):
        seen += portion
        assert seen + everything(tmp_path, position) == everything(tmp_path)
    journal.forget(tmp_path, position)
    assert len(journal.numbers(tmp_path)) == 1


def test_a_second_writer_leaves_what_the_first_wrote_alone(tmp_path: Path) -> None:
    for number in range(3):
        Journal(tmp_path, print).write(records.opened(Opened(f"{number:024x}", 1)))
    assert everything(tmp_path) == [
        record for number in range(3) for record in (Started(), Opened(f"{number:024x}", 1))
    ]


def test_whoever_empties_the_folder_starts_anew(tmp_path: Path) -> None:
    Journal(tmp_path, print)
    assert everything(tmp_path, Position(7, 1000)) == [Started()]


def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    (tmp_path / "journal").write_text("a file is in the way")
    ledger = Journal(tmp_path / "journal", told.append)
    for _ in range(10):
        ledger.write(records.started())
    assert len(told) == 1 and "cannot be written" in told[0]
    (tmp_path / "journal").unlink()
    monkeypatch.setattr(journal, "RETRY_S", 0.0)
    ledger._retry_s = 0.0
    ledger.write(records.started())
    assert everything(tmp_path / "journal") == [Started()]
    assert "11 records are lost" in told[1]


WRITER = """
import sys
from pathlib import Path
from lampyr.ledger import records
from lampyr.ledger.journal import Journal
ledger, number = Journal(Path(sys.argv[1]), print, 65536), 0
while True:
    ledger.write(records.opened(records.Opened(f"{number:024x}", 1)))
    sys.stdout.buffer.raw.write(b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("after_lines", [1, 500, 5000])
def test_what_its_writer_had_said_survives_its_kill(tmp_path: Path, after_lines: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after_lines)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    said = [int(line) for line in lines if line.endswith(b"\n")]
    ids = [record.id for record in everything(tmp_path) if isinstance(record, Opened)]
    assert ids[: len(said)] == [f"{number:024x}" for number in said]
    assert len(ids) - len(said) <= 1

"""Writers that are killed, that come all at once, and a disk that is full: nothing is lost, nothing is torn."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from keeping import Kept

from lampyr.errors import VaultError
from lampyr.vault import acts, store

# More of them, for a night: LAMPYR_KILLS=1000.
KILLS = int(os.environ.get("LAMPYR_KILLS", "20"))

WRITER = """
import sys
from pathlib import Path
from lampyr.vault import acts
from lampyr.vault.master import Keys
from lampyr.vault.place import Place

where, name, count = Place(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for number in range(count):
    row, = acts.put(where, Keys(None), {name: f"value-{number}"}, ("production",), acts.Grant())
    if number % 3 == 2:
        acts.rotate(where, Keys(None), None)
    print(row.version, number, flush=True)
"""


def writer(where: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(where), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_while_setting_and_rotating(kept: Kept) -> None:
    kept.put("OTHER", "stays-the-same")
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    for kill in range(KILLS):
        process = writer(kept.where.state, "A_KEY", 10_000)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the writer could not go on after the kill before it"
        try:
            process.wait(dice.uniform(0, 0.08))
        except subprocess.TimeoutExpired:
            process.kill()
        acknowledged = (line + process.stdout.read()).splitlines()[-1]
        process.stdout.close()
        process.wait()
        version, number = map(int, acknowledged.split())
        vault = store.load(kept.where, kept.keys)
        assert vault is not None
        found = vault.reveal("production")
        told = f"seed {seed}, kill {kill}: {acknowledged}, {found['A_KEY'].version}"
        assert found["A_KEY"].version - version in (0, 1), told
        assert found["A_KEY"].value == f"value-{number + found['A_KEY'].version - version}", told
        assert found["OTHER"].value == "stays-the-same"
        acts.verify(kept.where, kept.keys)
    kept.put("A_KEY", "at-last")
    left = {path.name for path in kept.where.folder.iterdir()}
    assert left == {"secrets.vault", "master.key", "audit.log", "lock"}


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    for number in range(max(5, KILLS // 4)):
        kept = Kept(tmp_path / str(number))
        process = writer(kept.where.state, "A_KEY", 1)
        while process.poll() is None and not kept.where.folder.exists():
            pass
        process.kill()
        process.communicate()
        kept.put("B_KEY", "secret-value")
        assert kept.values()["B_KEY"] == "secret-value"
        acts.verify(kept.where, kept.keys)


def test_eight_writers_at_once_lose_nothing(kept: Kept) -> None:
    writers = [writer(kept.where.state, f"KEY_{number}", 4) for number in range(8)]
    assert [process.communicate()[0].count("\n") for process in writers] == [4] * 8
    assert kept.values() == {f"KEY_{number}": "value-3" for number in range(8)}
    assert acts.verify(kept.where, kept.keys) == 8 * (4 + 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"no tmpfs can be mounted: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(bytes(folder), 0)


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    kept = Kept(small_disk)
    kept.put("A_KEY", "secret-value")
    before = kept.where.vault.read_bytes()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    for act in (lambda: kept.put("B_KEY", "x" * 20_000), lambda: acts.rotate(kept.where, kept.keys, None)):
        with pytest.raises(VaultError, match="No space left"):
            act()
        assert kept.where.vault.read_bytes() == before and kept.values() == {"A_KEY": "secret-value"}
    filler.unlink()
    kept.put("B_KEY", "x" * 5_000)
    assert len(kept.values()) == 2 and acts.verify(kept.where, kept.keys) >= 2

"""Writers that are killed, that come all at once, and a disk that is full: nothing is lost, nothing is torn."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from keeping import Kept

from lampyr.errors import VaultError
from lampyr.vault import acts, store
from lampyr.vault.master import Keys
from lampyr.vault.place import Place

# More of them, for a night: LAMPYR_KILLS=1000.
KILLS = int(os.environ.get("LAMPYR_KILLS", "50"))


class Writer:
    """A process that sets A_KEY again and again, rotates the master key now and then, and says what it has done.

    It is forked from here: one that has to import first is killed while it imports, mostly.
    """

    def __init__(self, where: Place, name: str, count: int) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                write(where, name, count, writing)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        self.lines = open(reading, "rb", buffering=0)  # noqa: SIM115  closed by `end`

    def kill(self) -> list[str]:
        """Kill it now; all that it has said."""
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> list[str]:
        with self.lines:
            said = self.lines.read().decode().splitlines()
        os.waitpid(self.pid, 0)
        return said


def write(where: Place, name: str, count: int, to: int) -> None:
    for number in range(count):
        (row,) = acts.put(where, Keys(None), {name: f"value-{number}"}, ("production",), acts.Grant())
        if number % 3 == 2:
            acts.rotate(where, Keys(None), None)
        os.write(to, f"{row.version} {number}\n".encode())


def test_killed_while_setting_and_rotating(kept: Kept) -> None:
    kept.put("OTHER", "stays-the-same")
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    version, number = kept.put("A_KEY", "value--1", "production"), -1
    for kill in range(KILLS):
        writer = Writer(kept.where, "A_KEY", 10_000)
        time.sleep(dice.uniform(0, 0.08))
        said = writer.kill()
        if said:
            version, number = map(int, said[-1].split())
        else:
            number = -1  # what it may have done unsaid is its first
        vault = store.load(kept.where, kept.keys)
        assert vault is not None
        found = vault.reveal("production")
        told = f"seed {seed}, kill {kill}: {said[-1:]}, {found['A_KEY'].version}"
        more = found["A_KEY"].version - version
        assert more in (0, 1), told
        if said or more:
            assert found["A_KEY"].value == f"value-{number + more}", told
        assert found["OTHER"].value == "stays-the-same"
        acts.verify(kept.where, kept.keys)
        version = found["A_KEY"].version
    kept.put("A_KEY", "at-last")
    left = {path.name for path in kept.where.folder.iterdir()}
    assert left == {"secrets.vault", "master.key", "audit.log", "lock"}


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    dice = random.Random()
    for number in range(max(10, KILLS // 4)):
        kept = Kept(tmp_path / str(number))
        writer = Writer(kept.where, "A_KEY", 1)
        time.sleep(dice.uniform(0, 0.03))
        writer.kill()
        kept.put("B_KEY", "secret-value")
        assert kept.values()["B_KEY"] == "secret-value"
        acts.verify(kept.where, kept.keys)


def test_eight_writers_at_once_lose_nothing(kept: Kept) -> None:
    writers = [Writer(kept.where, f"KEY_{number}", 4) for number in range(8)]
    assert [len(writer.end()) for writer in writers] == [4] * 8
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

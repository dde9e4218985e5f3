"""Whatever the vault's files hold: they are what was written, or one VaultError says that they are not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keeping import Kept

from lampyr.errors import VaultError
from lampyr.vault import acts, audit, store

Change = Callable[[bytes], bytes]


def _flipped(at: float, bit: int) -> Change:
    def change(data: bytes) -> bytes:
        place = int(at * len(data))
        return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]

    return change


def _cut(begin: float, length: int) -> Change:
    return lambda data: data[: int(begin * len(data))] + data[int(begin * len(data)) + length :]


def _put_in(at: float, more: bytes) -> Change:
    return lambda data: data[: int(at * len(data))] + more + data[int(at * len(data)) :]


def _copied(begin: float, to: float, length: int) -> Change:
    def change(data: bytes) -> bytes:
        start, end = int(begin * len(data)), int(to * len(data))
        return data[:end] + data[start : start + length] + data[end + length :]

    return change


part = st.floats(0, 1, exclude_max=True)
changes = st.one_of(
    st.builds(_flipped, part, st.integers(0, 7)),
    st.builds(_cut, part, st.integers(1, 64)),
    st.builds(_put_in, part, st.binary(min_size=1, max_size=64)),
    st.builds(_copied, part, part, st.integers(1, 64)),
)


@pytest.fixture(scope="module")
def used() -> Iterator[Kept]:
    """A vault with some of everything, and a trail."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder) / "state")
        kept.put("A_KEY", "secret-value", only=("/x",))
        kept.put("B_KEY", "another-value", "preview")
        kept.put("A_KEY", "newer-value", "production")
        acts.remove(kept.where, kept.keys, "B_KEY", ("preview",))
        acts.rotate(kept.where, kept.keys, None)
        yield kept


def spoiled(path: Path, data: bytes, act: Callable[[], object]) -> object:
    """What `act` gives, or the VaultError it raises, with other bytes in a file."""
    genuine = path.read_bytes()
    path.write_bytes(data)
    try:
        return act()
    except VaultError as error:
        return error
    finally:
        path.write_bytes(genuine)


@settings(max_examples=400, deadline=None)
@given(st.lists(changes, min_size=1, max_size=3))
def test_the_vault(used: Kept, changed: list[Change]) -> None:
    genuine = data = used.where.vault.read_bytes()
    for change in changed:
        data = change(data)
    found = spoiled(used.where.vault, data, used.values)
    if data == genuine:
        assert found == {"A_KEY": "newer-value"}
    else:
        assert isinstance(found, VaultError) and "\n" not in found.message
        assert not any(value in found.message for value in ("secret-value", "newer-value"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4096))
@example(b"")
@example(store.MAGIC)
@example(store.MAGIC + bytes([0]) + bytes(store.HEADER_BYTES))
def test_bytes_that_were_never_a_vault(used: Kept, data: bytes) -> None:
    for path in (used.where.vault, used.where.mark):
        assert isinstance(spoiled(path, data, used.values), VaultError)


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, min_size=1, max_size=3))
def test_the_mark(used: Kept, changed: list[Change]) -> None:
    genuine = data = used.where.mark.read_bytes()
    for change in changed:
        data = change(data)
    found = spoiled(used.where.mark, data, used.values)
    assert found == {"A_KEY": "newer-value"} if data == genuine else isinstance(found, VaultError)


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, min_size=1, max_size=3))
def test_the_trail(used: Kept, changed: list[Change]) -> None:
    """What follows the last whole line was left by a crash, and is none of it."""
    genuine = data = used.where.trail.read_bytes()
    for change in changed:
        data = change(data)
    found = spoiled(used.where.trail, data, lambda: acts.verify(used.where, used.keys))
    if isinstance(found, VaultError):
        assert data != genuine
    else:
        assert data[: data.rfind(b"\n") + 1] == genuine and found == len(genuine.splitlines())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4096))
def test_bytes_that_were_never_a_trail(used: Kept, data: bytes) -> None:
    found = spoiled(used.where.trail, data, lambda: list(audit.follow(used.where)))
    assert isinstance(found, VaultError) or found == []


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("0123456789abcdefABCDEF \n", max_size=80).map(str.encode)))
def test_the_key_file(used: Kept, data: bytes) -> None:
    found = spoiled(used.where.key, data, used.values)
    assert isinstance(found, VaultError) or data.strip() == used.where.key.read_bytes().strip()

"""What control waits for, where one end of it is closed while something else is done."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lampyr.control.loop import Loop
from lampyr.control.sealed import Sealed, Unreachable
from lampyr.runtime.channel import Channel
from lampyr.types import Project


def test_a_vault_that_dies_while_it_is_asked_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    """Its descriptor, closed and still waited for, would be ready for ever."""
    loop, told = Loop(), list[str]()
    sealed = Sealed(loop, lambda: told.append("vault"))
    ours, vault = Channel.pair()
    sealed.connect(ours)

    def die() -> None:
        vault.receive()
        vault.close()

    dies = threading.Thread(target=die)
    dies.start()
    with pytest.raises(Unreachable):
        sealed.ask(Project(root=tmp_path, home=tmp_path, app=tmp_path / "app", public=None), "")
    dies.join()
    assert not loop.turn(1) and not told


def test_who_has_been_forgotten_by_another_in_the_same_turn_is_not_told() -> None:
    loop, told = Loop(), list[str]()
    first, second = os.pipe(), os.pipe()

    def end_of_the_other(name: str, other: int) -> None:
        told.append(name)
        loop.forget(other)

    loop.hear(first[0], lambda: end_of_the_other("first", second[0]))
    loop.hear(second[0], lambda: end_of_the_other("second", first[0]))
    for _, writer in (first, second):
        os.write(writer, b"x")
    assert loop.turn(1000) and len(told) == 1
    for fd in (*first, *second):
        os.close(fd)

"""The audit trail: everything that was done is in it, never a value, and nothing can be taken out."""

from __future__ import annotations

from typing import Any

import pytest
from keeping import Kept

from lampyr.errors import VaultError
from lampyr.vault import acts, audit, store


def entries(kept: Kept) -> list[dict[str, Any]]:
    return [entry for _, entry in audit.follow(kept.where)]


@pytest.fixture
def used(kept: Kept) -> Kept:
    """A vault with four entries in its trail."""
    kept.put("A_KEY", "secret-value", only=("/x",))
    kept.put("B_KEY", "another-value", "preview")
    acts.remove(kept.where, kept.keys, "A_KEY", ("production",))
    acts.rotate(kept.where, kept.keys, None)
    return kept


def test_what_was_done(used: Kept) -> None:
    found = [(one["action"], one["name"], one.get("environments"), one.get("functions")) for one in entries(used)]
    assert found == [
        ("set", "A_KEY", list(store.ENVIRONMENTS), ["/x"]),
        ("set", "B_KEY", ["preview"], None),
        ("remove", "A_KEY", ["production"], None),
        ("rotate", None, None, None),
    ]
    assert all(one["who"] and one["time"].endswith("Z") and one["allowed"] for one in entries(used))
    assert b"-value" not in used.where.trail.read_bytes()
    assert acts.verify(used.where, used.keys) == 4


def test_what_was_refused(used: Kept) -> None:
    used.where.key.write_text("ab" * 32)
    with pytest.raises(VaultError):
        used.put("C_KEY", "secret-value")
    refused = entries(used)[-1]
    assert (refused["action"], refused["name"], refused["allowed"]) == ("set", "C_KEY", False)


def test_any_byte_that_is_changed_is_found(used: Kept) -> None:
    genuine = used.where.trail.read_bytes()
    for at in range(len(genuine)):
        used.where.trail.write_bytes(genuine[:at] + bytes([genuine[at] ^ 1]) + genuine[at + 1 :])
        with pytest.raises(VaultError, match="was changed"):
            acts.verify(used.where, used.keys)


@pytest.mark.parametrize("kept_lines", [[], [0], [0, 1, 2], [1, 2, 3], [0, 2, 3], [1, 0, 2, 3], [0, 0, 1, 2, 3]])
def test_entries_that_are_missing_moved_or_doubled_are_found(used: Kept, kept_lines: list[int]) -> None:
    lines = used.where.trail.read_bytes().splitlines(keepends=True)
    used.where.trail.write_bytes(b"".join(lines[at] for at in kept_lines))
    for act in (lambda: acts.verify(used.where, used.keys), lambda: used.put("C_KEY", "hides-the-loss")):
        with pytest.raises(VaultError, match="was changed"):
            act()


def test_a_chain_made_anew_is_found(used: Kept) -> None:
    told = entries(used)
    used.where.trail.unlink()
    audit.append(used.where, [*told[:3], {**told[3], "who": "somebody else"}])
    with pytest.raises(VaultError, match="line 4 is not what was written"):
        acts.verify(used.where, used.keys)


def test_a_line_that_was_cut_short_by_a_crash_is_none(used: Kept) -> None:
    with used.where.trail.open("ab") as file:
        file.write(b'{"time":"2026-')
    assert acts.verify(used.where, used.keys) == 4
    used.put("C_KEY", "secret-value")
    assert acts.verify(used.where, used.keys) == 5

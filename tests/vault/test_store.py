"""The sealed file: what is put in comes out, and whatever is not what was written is found out."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from keeping import Kept

from lampyr.errors import VaultError
from lampyr.vault import acts, store
from lampyr.vault.cipher import Broken
from lampyr.vault.master import Keys

PASSPHRASE = "a rather long passphrase"
OTHER_KEY = "ab" * 32


def refusal(kept: Kept) -> VaultError:
    with pytest.raises(VaultError) as caught:
        kept.values()
    assert "secret-value" not in caught.value.message and "\n" not in caught.value.message
    return caught.value


def test_what_is_put_in_comes_out(kept: Kept) -> None:
    kept.put("A_KEY", "secret-value\nß", only=("/api/chat",))
    vault = store.load(kept.where, kept.keys)
    assert vault is not None
    found = vault.reveal("production")["A_KEY"]
    assert (found.value, found.functions, found.version) == ("secret-value\nß", ("/api/chat",), 1)
    assert "secret-value" not in f"{found} {found!r} {vault!r}"


def test_environments_are_separate(kept: Kept) -> None:
    kept.put("A_KEY", "for-all")
    kept.put("A_KEY", "for-production", "production")
    assert kept.values("development") == {"A_KEY": "for-all"} and kept.values() == {"A_KEY": "for-production"}
    acts.remove(kept.where, kept.keys, "A_KEY", ("development",))
    assert kept.values("development") == {} and kept.values("preview") == {"A_KEY": "for-all"}


def test_a_version_is_never_used_twice(kept: Kept) -> None:
    versions = [kept.put("A_KEY", "one"), kept.put("A_KEY", "two", "production")]
    acts.remove(kept.where, kept.keys, "A_KEY", store.ENVIRONMENTS)
    assert [*versions, kept.put("A_KEY", "three")] == [1, 2, 3]


def test_grants_stay_until_they_are_changed(kept: Kept) -> None:
    kept.put("A_KEY", "one", only=("/x",))
    acts.put(kept.where, kept.keys, {"A_KEY": "two"}, store.ENVIRONMENTS, acts.Grant())
    (row,) = acts.rows(kept.where, kept.keys, store.ENVIRONMENTS)
    assert (row.functions, row.version) == (("/x",), 2)


def test_neither_value_nor_name_is_in_any_file(kept: Kept) -> None:
    kept.put("A_VERY_SECRET_NAME", "secret-value")
    assert b"A_VERY_SECRET_NAME" not in kept.where.vault.read_bytes()
    for path in kept.where.state.rglob("*"):
        assert path.is_dir() or b"secret-value" not in path.read_bytes()


def test_only_the_owner_may_read_the_files(kept: Kept) -> None:
    umask = os.umask(0)
    try:
        kept.put("A_KEY", "secret-value")
    finally:
        os.umask(umask)
    files = [kept.where.mark, *kept.where.folder.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(kept.where.folder.stat().st_mode) == 0o700


def test_without_a_vault_there_are_no_secrets_and_nothing_is_made(kept: Kept) -> None:
    assert kept.values() == {} and not kept.where.state.exists()


class TestChanged:
    """Whatever is changed is found out, and always in the same words."""

    def test_any_byte_of_the_vault(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        genuine = kept.where.vault.read_bytes()
        messages = set()
        # Where the format names itself it says so; a byte that asks for a passphrase asks for one.
        for at in range(len(genuine)):
            changed = bytearray(genuine)
            changed[at] ^= 1
            kept.where.vault.write_bytes(changed)
            messages.add(refusal(kept).message.replace(str(kept.where.vault), "V"))
        assert messages == {
            "the vault V cannot be opened: it was changed, or this is not its master key",
            "the vault V is of another version of Lampyr",
            "the vault V is locked with a passphrase, and there is none",
        }
        kept.where.vault.write_bytes(genuine)
        assert kept.values() == {"A_KEY": "secret-value"}

    def test_any_length(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        genuine = kept.where.vault.read_bytes()
        for changed in (*(genuine[:size] for size in range(len(genuine))), genuine + b"\0", genuine * 2):
            kept.where.vault.write_bytes(changed)
            assert "was changed" in refusal(kept).message
        kept.where.vault.unlink()
        assert "is gone, and there was one" in refusal(kept).message

    def test_any_byte_of_the_mark(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        genuine = kept.where.mark.read_bytes()
        for at in range(len(genuine)):
            kept.where.mark.write_bytes(genuine[:at] + bytes([genuine[at] ^ 0x80]) + genuine[at + 1 :])
            assert "do not belong together" in refusal(kept).message

    def test_a_record_that_is_moved(self, kept: Kept) -> None:
        """Even who could seal the file anew cannot give a value another name, environment or version."""
        kept.put("A_KEY", "secret-value")
        kept.put("B_KEY", "another-value")
        vault = store.load(kept.where, kept.keys)
        assert vault is not None
        own, other = vault.records["production", "A_KEY"], vault.records["production", "B_KEY"]
        for field, value in (("name", "B_KEY"), ("environment", "preview"), ("version", 2)):
            moved = {one: getattr(own, one) for one in store.Record.__slots__} | {field: value}
            vault.records = {(moved["environment"], "x"): store.Record(**moved)}
            with pytest.raises(Broken):
                vault.reveal(moved["environment"])
        mixed = {one: getattr(own, one) for one in store.Record.__slots__} | {"sealed": other.sealed}
        vault.records = {("production", "x"): store.Record(**mixed)}
        with pytest.raises(Broken):
            vault.reveal("production")

    def test_an_older_copy(self, kept: Kept, tmp_path: Path) -> None:
        kept.put("A_KEY", "secret-value")
        shutil.copytree(kept.where.folder, tmp_path / "copy")
        kept.put("A_KEY", "newer-value")
        shutil.rmtree(kept.where.folder)
        shutil.copytree(tmp_path / "copy", kept.where.folder)
        assert "is an older copy: the latest 1 of its changes" in refusal(kept).message

    def test_an_older_copy_without_the_mark(self, kept: Kept) -> None:
        kept.put("A_KEY", "one")
        kept.put("A_KEY", "two")
        kept.where.mark.unlink()
        assert "is gone, and without it an old vault may pass" in refusal(kept).message

    def test_an_older_copy_may_be_accepted(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        older, trail = kept.where.vault.read_bytes(), kept.where.trail.read_bytes()
        kept.put("A_KEY", "newer-value")
        newer = kept.where.vault.read_bytes()
        kept.where.vault.write_bytes(older)
        kept.where.trail.write_bytes(trail)
        acts.rotate(kept.where, kept.keys, None, accept_older=True)
        assert kept.values() == {"A_KEY": "secret-value"} and acts.verify(kept.where, kept.keys) == 2
        kept.where.vault.write_bytes(newer)
        refusal(kept)

    def test_a_vault_of_another_project(self, tmp_path: Path) -> None:
        """Also where both have the same master key."""
        one, other = Kept(tmp_path / "one", OTHER_KEY), Kept(tmp_path / "other", OTHER_KEY)
        one.put("A_KEY", "secret-value")
        other.put("A_KEY", "other-value")
        shutil.copy(other.where.vault, one.where.vault)
        assert "do not belong together" in refusal(one).message


class TestMasterKey:
    def test_another_key(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        kept.where.key.write_text(OTHER_KEY)
        assert "or this is not its master key" in refusal(kept).message
        assert "or this is not its master key" in refusal(Kept(kept.where.state, OTHER_KEY)).message

    @pytest.mark.parametrize("given", [OTHER_KEY, OTHER_KEY.upper(), "q" * 43 + "=", PASSPHRASE])
    def test_one_that_is_given(self, tmp_path: Path, given: str) -> None:
        kept = Kept(tmp_path, given)
        kept.put("A_KEY", "secret-value")
        assert kept.values() == {"A_KEY": "secret-value"} and not kept.where.key.exists()
        assert "was changed, or this is not" in refusal(Kept(tmp_path, "another passphrase")).message

    def test_a_passphrase_is_asked_for_where_none_is_given(self, tmp_path: Path) -> None:
        Kept(tmp_path, PASSPHRASE).put("A_KEY", "secret-value")
        vault = store.load(Kept(tmp_path).where, Keys(None, lambda: PASSPHRASE))
        assert vault is not None and vault.reveal("preview")["A_KEY"].value == "secret-value"
        assert "there is none" in refusal(Kept(tmp_path)).message

    def test_a_short_passphrase_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(VaultError, match="too short"):
            Kept(tmp_path, "short").put("A_KEY", "secret-value")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_a_key_that_others_may_read_is_refused(self, kept: Kept, mode: int) -> None:
        kept.put("A_KEY", "secret-value")
        kept.where.key.chmod(mode)
        assert f"may be read by others (mode {mode:04o})" in refusal(kept).message

    def test_a_key_that_is_gone(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        kept.where.key.unlink()
        assert "there is no master key" in refusal(kept).message


class TestRotation:
    def test_the_old_key_opens_nothing_any_more(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        sealed = store.load(kept.where, kept.keys)
        before = kept.where.key.read_text()
        acts.rotate(kept.where, kept.keys, None)
        assert kept.values() == {"A_KEY": "secret-value"} and kept.where.key.read_text() != before
        rotated = store.load(kept.where, kept.keys)
        assert sealed is not None and rotated is not None
        one, other = (vault.records["production", "A_KEY"] for vault in (sealed, rotated))
        assert one.sealed == other.sealed and one.wrapped_key != other.wrapped_key
        kept.where.key.write_text(before)
        refusal(kept)

    def test_from_a_file_to_a_passphrase_and_back(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        acts.rotate(kept.where, kept.keys, PASSPHRASE)
        assert not kept.where.key.exists()
        locked = Kept(kept.where.state, PASSPHRASE)
        assert locked.values() == {"A_KEY": "secret-value"}
        acts.rotate(locked.where, locked.keys, None)
        assert kept.values() == {"A_KEY": "secret-value"}

    def test_one_that_was_cut_short_before_the_vault_was_written(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        kept.where.next_key.write_text(OTHER_KEY)
        kept.where.next_key.chmod(0o600)
        assert kept.values() == {"A_KEY": "secret-value"}
        kept.put("B_KEY", "more")
        assert not kept.where.next_key.exists() and len(kept.values()) == 2

    def test_one_that_was_cut_short_after_the_vault_was_written(self, kept: Kept) -> None:
        kept.put("A_KEY", "secret-value")
        before = kept.where.key.read_text()
        acts.rotate(kept.where, kept.keys, None)
        kept.where.key.rename(kept.where.next_key)
        kept.where.key.write_text(before)
        kept.where.key.chmod(0o600)
        assert kept.values() == {"A_KEY": "secret-value"}
        kept.put("B_KEY", "more")
        assert not kept.where.next_key.exists() and kept.where.key.read_text() != before and len(kept.values()) == 2

"""The bytes of the vault: frozen files of every released version still open (docs/vault-format.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lampyr.vault import cipher, store
from lampyr.vault.master import Keys
from lampyr.vault.place import Place

VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_a_frozen_vault_opens(tmp_path: Path, file: Path) -> None:
    frozen = json.loads(file.read_text())
    where = Place(tmp_path)
    where.folder.mkdir()
    where.vault.write_bytes(bytes.fromhex(frozen["vault"]))
    where.mark.write_bytes(bytes.fromhex(frozen["mark"]))
    vault = store.load(where, Keys(frozen["master"]))
    assert vault is not None and vault.generation == frozen["generation"]
    for environment, secrets in frozen["secrets"].items():
        found = {name: [one.value, one.version, one.functions] for name, one in vault.reveal(environment).items()}
        assert found == {name: [value, version, who and tuple(who)] for name, (value, version, who) in secrets.items()}


def test_every_kind_of_master_key_has_a_frozen_vault() -> None:
    assert {file.stem for file in VECTORS} >= {"v1-key", "v1-passphrase"}


class TestCiphers:
    """Known answers of others, so that what we call is what we think it is."""

    def test_aes_256_gcm(self) -> None:
        # Test case 16 of the GCM specification (McGrew and Viega), which NIST's own vectors include.
        key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
        nonce = bytes.fromhex("cafebabefacedbaddecaf888")
        data = bytes.fromhex(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        )
        text = bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        )
        tag = bytes.fromhex("76fc6ece0f4e1768cddf8853bb2d551b")
        bound = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        assert cipher.unseal(key, nonce + data + tag, bound) == text

    def test_hkdf_is_that_of_rfc_5869(self) -> None:
        # Test case 1 of its appendix A, cut to 32 bytes.
        found = cipher.derive(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
        assert found.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"

    def test_a_nonce_is_new_every_time(self) -> None:
        assert len({cipher.seal(bytes(32), b"", b"")[:12] for _ in range(1000)}) == 1000

    def test_no_two_places_are_bound_alike(self) -> None:
        assert cipher.bind(b"ab", b"c") != cipher.bind(b"a", b"bc")

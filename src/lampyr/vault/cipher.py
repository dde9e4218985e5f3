"""All cipher calls of Lampyr: few, from one library (pyca/cryptography), with the reason beside each choice."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
SALT_BYTES = 16
# 96 bits is the only length that GCM uses as it is (NIST SP 800-38D, 5.2.1.1).
NONCE_BYTES = 12
TAG_BYTES = 16

# The second choice of RFC 9106 (4), for where 2 GiB are too much: 64 MiB, 3 passes, 4 lanes. A guess costs about
# 0.1 s. They belong to the format and are not read from a file, where somebody could ask for 4 TiB.
ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES = 64 * 1024, 3, 4


class Broken(Exception):
    """What was sealed cannot be opened: another key, other bytes, or it belongs elsewhere. Nobody learns which."""


def random_bytes(count: int) -> bytes:
    """From the system: the only source whose state is not in this process."""
    return os.urandom(count)


def bind(*parts: bytes) -> bytes:
    """Associated data: where a sealed thing belongs. Each part has its length before it, so no two places agree."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def seal(key: bytes, data: bytes, bound: bytes) -> bytes:
    """The nonce, then `data` in AES-256-GCM: it hides and authenticates in one step, and processors do it in hardware.

    The nonce is random: a key would have to seal 2^32 things before two nonces agree with a chance of 2^-32 (NIST SP
    800-38D, 8.3). The data key of a value seals one, the other keys one for each change since the last rotation.
    """
    nonce = random_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """What `seal` was given. Raises Broken."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise Broken
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except InvalidTag:
        raise Broken from None


def derive(master: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key for one purpose only, so that what was sealed for one never opens as another (HKDF, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(master)


def stretch(passphrase: str, salt: bytes) -> bytes:
    """A master key of a passphrase: Argon2id, because memory is what makes guessing on graphics cards expensive."""
    argon2 = Argon2id(salt=salt, length=KEY_BYTES, iterations=ARGON2_PASSES, lanes=ARGON2_LANES, memory_cost=ARGON2_KIB)
    return argon2.derive(passphrase.encode("utf-8", "surrogateescape"))


def link(before: bytes, data: bytes) -> bytes:
    """The hash of a chain that has grown by `data`: no key, so that anyone can follow it."""
    return hashlib.sha256(bind(before, data)).digest()

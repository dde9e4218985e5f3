"""Randomness after the fork: all instances start from one memory image, so what was seeded there is seeded anew."""

from __future__ import annotations

import os
import random
import sys


def reseed() -> None:
    """Seed the module-level generators of `random` and numpy afresh from the kernel (random(7)).

    `secrets`, `uuid.uuid4` and `random.SystemRandom` read the kernel at every call; OpenSSL notices the fork itself.
    """
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "big"))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()

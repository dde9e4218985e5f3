"""Randomness after the fork: all instances start from one memory image, so what was seeded there is seeded anew."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

# The seeds that numpy draws when nobody names one have 128 bits, those of torch 53; much shorter ones have been chosen.
CHOSEN_NUMPY_BITS, CHOSEN_TORCH_BITS = 64, 32
UNSEEDED_TORCH = 67280421310721  # what every new torch.Generator begins with

# What every instance calls once. Found before the fork; those of a parent snapshot stay in it.
renewals: list[Callable[[], object]] = [random.seed]


def reseed() -> None:
    """Give every generator that was there before the fork a state of its own, from the kernel (random(7)).

    `secrets`, `uuid.uuid4` and `random.SystemRandom` read the kernel at every call; OpenSSL notices the fork itself.
    """
    for renew in renewals:
        renew()


def find(chosen: Iterable[object]) -> list[object]:
    """Find the generators that an import has made, for `reseed`. Returns those with a seed that somebody chose.

    These go on from that seed in every instance. `chosen` are the ones of `random` known to be such; the generators
    that a module has for everybody (`random.random()`, `numpy.random.rand()`, `torch.rand()`) never are.
    """
    kept = list(chosen)
    spared = {id(one) for one in kept}
    drawn = [one for one in instances_of(random.Random) if id(one) not in spared]
    renewals.extend(partial(_seed, one) for one in drawn if not isinstance(one, random.SystemRandom))
    if "numpy.random" in sys.modules:
        kept += _find_numpy(sys.modules["numpy.random"])
    if "torch" in sys.modules:
        kept += _find_torch(sys.modules["torch"])
    if "uuid" in sys.modules and _renew_uuid not in renewals:
        renewals.append(_renew_uuid)
    return kept


def instances_of(kind: type[Any]) -> list[Any]:
    """The objects of `kind` and its subclasses that this process has made since the last `gc.freeze()`."""
    kinds = {kind}
    pending = [kind]
    while pending:
        new = set(pending.pop().__subclasses__()) - kinds
        kinds |= new
        pending += new
    return [one for one in gc.get_objects() if type(one) in kinds]


def _seed(generator: random.Random) -> None:
    try:
        generator.seed()
    except Exception:  # a subclass wants it done its own way, and still draws from here unless it draws elsewhere
        random.Random.seed(generator)


def _find_numpy(numpy_random: Any) -> list[object]:
    """A bit generator that is made again, in place, has a new seed sequence too, from which `spawn` draws."""
    shared = numpy_random.mtrand._rand
    renewals.append(shared.seed)
    kept: list[object] = []
    seeders = [one for one in instances_of(numpy_random.RandomState) if one is not shared]
    drawn_through = {id(one._bit_generator): one for one in seeders}
    for bits in instances_of(numpy_random.BitGenerator):
        if bits is shared._bit_generator:
            continue
        if _is_chosen(bits):
            kept.append(bits)
        elif id(bits) in drawn_through and isinstance(bits, numpy_random.MT19937):
            renewals.append(drawn_through[id(bits)].seed)  # forgets the second half of a pair of normal numbers too
        else:
            renewals.append(bits.__init__)
    return kept


def _is_chosen(bits: Any) -> bool:
    sequence = bits.seed_seq
    if sequence is None:  # RandomState(42)
        return True
    seed = getattr(sequence, "entropy", None)
    return not isinstance(seed, int) or seed.bit_length() < CHOSEN_NUMPY_BITS


def _find_torch(torch: Any) -> list[object]:
    """The garbage collector does not know torch's generators; what refers to them it does."""
    renewals.append(torch.seed)
    found = {id(one): one for one in gc.get_referents(*gc.get_objects()) if type(one) is torch.Generator}
    found.pop(id(torch.default_generator), None)
    kept: list[object] = []
    for one in found.values():
        seed = one.initial_seed()
        if seed == UNSEEDED_TORCH or seed.bit_length() <= CHOSEN_TORCH_BITS:
            kept.append(one)
        else:
            renewals.append(one.seed)
    return kept


def _renew_uuid() -> None:
    """Let `uuid1` and `uuid6` name an address of this process's own (RFC 9562 6.10) instead of the machine's.

    The C library counts within the time of one tick in memory that has been copied to every instance.
    """
    uuid: Any = sys.modules["uuid"]
    uuid._generate_time_safe = None
    uuid._node = random.getrandbits(48) | 1 << 40

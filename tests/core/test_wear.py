"""When an instance has served its time."""

from __future__ import annotations

import pytest

from lampyr.core.wear import MIB, MOST_SERVED, worn


@pytest.mark.parametrize(
    ("served", "first_mib", "used_mib", "why"),
    [
        (1, 10, 10, ""),
        (MOST_SERVED - 1, 10, 10, ""),
        (MOST_SERVED, 10, 10, f"it has served {MOST_SERVED} requests"),
        (5, 10, 79, ""),
        (5, 10, 80, "it uses 80 of its 100 MiB"),
        (5, 10, 99, "it uses 99 of its 100 MiB"),
        (MOST_SERVED, 10, 99, "it uses 99 of its 100 MiB"),
        (5, 95, 95, ""),  # it needs that from the first request on, and so would the next one
        (5, 85, 90, ""),
        (5, 85, 95, "it uses 95 of its 100 MiB"),
        (MOST_SERVED, 95, 95, f"it has served {MOST_SERVED} requests"),
        (5, 0, 0, ""),  # nobody knows
    ],
)
def test_an_instance_is_worn(served: int, first_mib: int, used_mib: int, why: str) -> None:
    assert worn(served, first_mib * MIB, used_mib * MIB, 100 * MIB) == why

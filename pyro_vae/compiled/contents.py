"""What holds values outside of Python's own objects: arrays and tables, whose contents are compared.

An attribute that is bound anew shows; an entry of an array that is written to does not.  So arrays and tables that
programs hold are read before every call, up to a size.  Other memory that can be written to, ``bytearray`` or what
processes share, is refused, and so is an iterator, which changes as it is read.
"""

from __future__ import annotations

import functools
import logging
import pickle
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

LARGEST_ARRAY = 2**18  # bytes of an array that are looked at on every call
_TABLES = ("pandas", "polars", "xarray")
_SHARED = {("multiprocessing.synchronize", "Event"), ("multiprocessing.synchronize", "Condition")}


class Unwatchable(Exception):
    """Programs hold what can change without a trace; the text says what."""


def reader_of(path: str, thing: Any) -> Callable[[], int] | None:
    """A function that gives a checksum of what an array or a table holds, or the level of a logger.

    It does not keep a table alive.

    Args:
        path: what it is called.
        thing: what may be an array, a table or a logger.

    Returns:
        The function; None for anything else.

    Raises:
        Unwatchable: if it holds too much to be read at every call.
    """
    if isinstance(thing, logging.Logger):
        return functools.partial(level, thing)
    if isinstance(thing, np.ndarray):
        if thing.dtype.hasobject:
            raise Unwatchable(f"{path} is a NumPy array of objects")
        _check_size(path, "NumPy array", thing)
        return lambda: checksum(thing)
    kind = type(thing)
    if str(kind.__module__).split(".")[0] not in _TABLES or not hasattr(kind, "__array__"):
        return None
    for column in _columns(thing):
        _check_size(path, kind.__name__, column)
    find = weakref.ref(thing)
    return lambda: 0 if (table := find()) is None else zlib.crc32(repr(list(map(checksum, _columns(table)))).encode())


def level(logger: logging.Logger) -> int:
    """The level from which on a logger says anything."""
    return max(logger.getEffectiveLevel(), logger.manager.disable + 1)


def checksum(found: np.ndarray) -> int:
    """What tells the contents of an array from others."""
    if found.dtype.hasobject:
        return zlib.crc32(pickle.dumps(found.tolist()))
    return zlib.crc32(np.ascontiguousarray(found).reshape(-1).view(np.uint8).data) if found.size else 0


def changes_unseen(thing: Any) -> bool:
    """Whether a program can draw from an object or write to it, and there is no state to look at."""
    if isinstance(thing, Iterator):
        return not isinstance(thing, weakref.ProxyTypes) and not hasattr(thing, "__dict__")
    if isinstance(thing, memoryview):  # read-only, or not: its memory may be written to by another way
        return not isinstance(thing.obj, bytes)
    kind = type(thing)
    if kind.__module__ == "multiprocessing.managers" or (kind.__module__, kind.__name__) in _SHARED:
        return True
    try:
        with memoryview(thing) as memory:
            return not memory.readonly
    except (TypeError, BufferError, ValueError):  # it is not memory
        return False


def _columns(table: Any) -> list[np.ndarray]:
    items = table.items() if hasattr(table, "columns") and hasattr(table, "items") else [(None, table)]
    return [np.asarray(column) for _, column in items]


def _check_size(path: str, kind: str, found: np.ndarray) -> None:
    if found.nbytes > LARGEST_ARRAY:
        raise Unwatchable(f"{path} is a {kind} of {found.nbytes:,} bytes; hold it as a tensor")

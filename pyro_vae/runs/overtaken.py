"""Reading what a writer may replace at any moment: once more where he did, and refused where nobody did."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyro_vae.errors import InputError
from pyro_vae.runs.config_file import broken

TRIES, PAUSE = 50, 0.02  # and seconds in between

Found = TypeVar("Found")


def read_together(read: Callable[[], Found], files: Callable[[], list[Path]]) -> Found:
    """Read files that are replaced one after the other, once more where they do not go together.

    Args:
        read: reads them.
        files: which these are now.

    Raises:
        InputError: if they are damaged.
    """
    seen = None
    for _ in range(TRIES):
        try:
            return read()
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            failure: Exception = error
        now = _stamps(files())
        if now == seen:
            break  # nobody is writing
        seen = now
        time.sleep(PAUSE)
    raise broken(files()[0], failure) from None


def read_current(read: Callable[[], Found], refresh: Callable[[], bool], path: Path) -> Found:
    """Read a file that a pointer names and that is gone when the pointer names another.

    Args:
        read: reads what the pointer names, as it was read last.
        refresh: reads the pointer anew; whether it names something else now.
        path: the file, for errors.

    Raises:
        InputError: if it is damaged.
    """
    for _ in range(TRIES):
        try:
            return read()
        except (OSError, ValueError) as error:
            failure = error
        if not refresh():
            break
    raise failure if isinstance(failure, InputError) else broken(path, failure) from None


def _stamps(paths: list[Path]) -> list[tuple[int, int]]:
    stamps = []
    for path in paths:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            stamps.append((found.st_ino, found.st_mtime_ns))
    return stamps

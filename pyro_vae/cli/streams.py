"""Standard streams that are closed, full or gone, and text that they cannot take: nothing of that costs a run."""

from __future__ import annotations

import contextlib
import os
import sys


def open_missing_streams() -> None:
    """Open nothing in the place of standard streams that are closed, so that no other file gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free


def take_any_text() -> None:
    """Have the streams show what their encoding cannot, names of files that are not text among it, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_output() -> None:
    """Write out what standard output holds back.

    Raises:
        OSError: if it cannot take it; it takes nothing from then on, so that the end of the process says nothing more.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()
        raise


def discard_output() -> None:
    """Have standard output take everything and show nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

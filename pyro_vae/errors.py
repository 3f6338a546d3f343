"""What goes wrong, said for the person who can mend it.

Every refusal is one line: what was expected, what came, and the call that mends it.  The command line turns the class
into an exit status: 2 for bad usage or bad input, 1 for a run that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PyroVAEError(Exception):
    """Any error that this package raises on purpose."""

    exit_status = 1


class InputError(PyroVAEError, ValueError):
    """Bad usage or bad input: nothing was written and nothing was lost.

    Args:
        expected: what would have been right.
        got: what came instead.
        mend: the call, flag or step that mends it.
    """

    exit_status = 2

    def __init__(self, expected: str, got: str, mend: str) -> None:
        super().__init__(f"expected {expected}; got {got}; {mend}")


class TrainingError(PyroVAEError, RuntimeError):
    """A run that started well and failed, for example by a loss that is not a number.

    Args:
        found: what happened.
        mend: what to try.
    """

    def __init__(self, found: str, mend: str) -> None:
        self.found, self.mend = found, mend
        super().__init__(f"{found}; {mend}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The mend for a name that nobody knows: the near miss, if there is one, or the whole list."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"

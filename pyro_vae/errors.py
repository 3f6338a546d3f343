"""What goes wrong, said for the person who can mend it.

Every refusal is one line: what was expected, what came, and the call that mends it.  The command line turns the class
into an exit status: 2 for bad usage or bad input, 1 for a run or a system that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PyroVAEError(Exception):
    """Any error that this package raises on purpose.

    Example:
        >>> from pyro_vae.data import load_data
        >>> from pyro_vae.errors import PyroVAEError
        >>> try:
        ...     load_data("no/such/folder")
        ... except PyroVAEError as error:
        ...     print(error)
        expected a folder of images, or a file of arrays or a table, at no/such/folder; got no such folder;
        check the path
        >>> PyroVAEError.exit_status
        1
    """

    exit_status = 1


class InputError(PyroVAEError, ValueError):
    """Bad usage or bad input: nothing was written and nothing was lost.

    Args:
        expected: what would have been right.
        got: what came instead.
        mend: the call, flag or step that mends it.

    Example:
        >>> from pyro_vae.errors import InputError
        >>> error = InputError("at least two classes", "1", "label more classes")
        >>> print(error)
        expected at least two classes; got 1; label more classes
        >>> isinstance(error, ValueError), error.exit_status
        (True, 2)
    """

    exit_status = 2

    def __init__(self, expected: str, got: str = "", mend: str = "") -> None:
        if not (got or mend):  # as Pyro raises anew, with the shapes of all sites below, what a program raises
            super().__init__(expected.partition("\n")[0])
        else:
            super().__init__(f"expected {expected}; got {got}; {mend}")


class TakenError(InputError):
    """A place where something is already.

    Example:
        >>> from pyro_vae.errors import TakenError
        >>> print(TakenError("a new folder", "a run that is there already", "choose another"))
        expected a new folder; got a run that is there already; choose another
    """


class TrainingError(PyroVAEError, RuntimeError):
    """A run that started well and failed, for example by a loss that is not a number.

    Args:
        found: what happened.
        mend: what to try.

    Example:
        >>> from pyro_vae.errors import TrainingError
        >>> error = TrainingError("the loss is not a number in epoch 3", "use a smaller --lr")
        >>> print(error)
        the loss is not a number in epoch 3; use a smaller --lr
        >>> error.mend, error.exit_status
        ('use a smaller --lr', 1)
    """

    def __init__(self, found: str, mend: str) -> None:
        self.found, self.mend = found, mend
        super().__init__(f"{found}; {mend}")


class StorageError(PyroVAEError):
    """A disk that took no more: full, over a quota or a limit, or failing; what was there before is kept.

    Args:
        found: what could not be written, and why.
        mend: what to try.

    Example:
        >>> from pyro_vae.errors import StorageError
        >>> error = StorageError("run could not be written: No space left on device", "make room and try again")
        >>> print(error)
        run could not be written: No space left on device; make room and try again
        >>> error.exit_status
        1
    """

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found}; {mend}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The mend for a name that nobody knows: the near miss, if there is one, or the whole list.

    Example:
        >>> from pyro_vae.errors import nearest
        >>> nearest("ssvae", ["vae", "ss_vae", "hvae"])
        "did you mean 'ss_vae'?"
        >>> nearest("flow", ["vae", "ss_vae", "hvae"])
        'choose one of: hvae, ss_vae, vae'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"

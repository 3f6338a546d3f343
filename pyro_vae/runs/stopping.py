"""Signals that ask a fit to end: its step is finished and saved, so that nothing but the steps to come is lost.

Ctrl-C sends SIGINT; batch systems, containers and ``timeout`` send SIGTERM some seconds before they kill, or SIGUSR1,
SIGUSR2 or SIGXCPU, as they are told to or when the time is over; a terminal that is closed sends SIGHUP.  A signal that
is ignored (``nohup``), or that the program around has a handler of its own for, is left alone; only Ctrl-C is always
taken, since Python itself has a handler for it.

Of several processes ``torchrun`` ends with SIGTERM those that are left when one has failed.  What they found by
themselves is to be said first, so that after an error the first SIGTERM does nothing there.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pyro_vae.distributed import is_one_of_several
from pyro_vae.errors import PyroVAEError
from pyro_vae.runs.run import Run

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # Windows has the first two
SIGNALS = {getattr(signal, name): name for name in _NAMES if hasattr(signal, name)} | {signal.SIGINT: "Ctrl-C"}


class Stoppable(Protocol):
    """What can be asked to end after the step under way."""

    stop_requested: bool


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal such as that of Ctrl-C, after the step under way.

    Attributes:
        run: the run, as far as it came.
        exit_status: what a command ends with, 128 and the number of the signal.
    """

    def __init__(self, run: Run, by: int = signal.SIGINT) -> None:
        super().__init__(f"stopped by {SIGNALS[signal.Signals(by)]}")
        self.run = run
        self.exit_status = 128 + by


@contextmanager
def stopping(trainer: Stoppable) -> Iterator[list[int]]:
    """Let the first signal finish the step under way; a second one does what it would have done.

    Args:
        trainer: is asked to end.

    Returns:
        The signals that came, which is filled while the context lasts.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone can have handlers
        yield came
        return

    def stop(number: int, frame: Any) -> None:
        trainer.stop_requested = True
        came.append(number)
        signal.signal(number, before[number])

    taken = (number for number in SIGNALS if number == signal.SIGINT or _is_nobodys(number))
    before = {number: signal.signal(number, stop) for number in taken}
    kept: int | None = None
    try:
        yield came
    except PyroVAEError:
        kept = signal.SIGTERM if is_one_of_several() else None
        raise
    finally:
        for number, handler in before.items():
            if number != kept or number in came:
                signal.signal(number, handler)


@contextmanager
def hinting(hint: str) -> Iterator[None]:
    """Add to what stops Python at once, as a second signal does, how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not isinstance(error, Interrupted):  # which says so itself
            error.add_note(hint)
        raise


def _is_nobodys(number: int) -> bool:
    """Whether a signal does what it does by default, by what Python knows and, of other languages, the system."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        return False
    with contextlib.suppress(OSError, ValueError, IndexError):
        caught = re.findall(r"^SigCgt:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)[0]
        return not int(caught, 16) >> (number - 1) & 1  # as by faulthandler.register
    return True

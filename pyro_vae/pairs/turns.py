"""Whose turn it is in a process: Pyro's stacks and parameter store and torch's random state are one for all threads.

Two threads that run programs at once would draw from each other's noise, and neither would say so.  A training keeps
its turn to its end, and other threads are refused meanwhile; whoever only looks at a pair is done soon, and waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.seed_messenger import SeedMessenger

from pyro_vae.errors import InputError


class _Turns:
    def __init__(self) -> None:
        self._free = threading.Condition()
        self._owner: int | None = None
        self._depth = 0
        self._trainings = 0  # of the owner

    @contextmanager
    def taken(self, training: bool) -> Iterator[None]:
        me = threading.get_ident()
        with self._free:
            while self._owner not in (None, me):
                if self._trainings:
                    raise InputError(
                        "one thing at a time in a process",
                        "a training in another thread, whose noise this would change",
                        "wait until it ends, or use a process for each",
                    )
                self._free.wait()
            self._owner, self._depth, self._trainings = me, self._depth + 1, self._trainings + training
        try:
            yield
        finally:
            with self._free:
                self._depth, self._trainings = self._depth - 1, self._trainings - training
                if not self._depth:
                    self._owner = None
                    self._free.notify_all()


_turns = _Turns()


@contextmanager
def training() -> Iterator[None]:
    """This thread's turn to train, until the end.

    Raises:
        InputError: if another thread trains.
    """
    with _turns.taken(training=True):
        yield


@contextmanager
def fitting() -> Iterator[None]:
    """This thread's turn to train, with gradients, whatever its caller has set for programs and tensors.

    Raises:
        InputError: if another thread trains, handlers of Pyro are around, or numbers would be of half precision.
    """
    around = [type(handler).__name__ for handler in _PYRO_STACK if not isinstance(handler, SeedMessenger)]
    if around:
        expected = "a call outside of Pyro's programs, plates and handlers"
        raise InputError(expected, f"one within {', '.join(around)}", "give the model within it, as a program, instead")
    if torch.get_default_dtype() not in (torch.float32, torch.float64):
        found = f"{torch.get_default_dtype()}".removeprefix("torch.")
        mend = "use torch.set_default_dtype(torch.float32), and precision='bf16' for networks of half precision"
        raise InputError("numbers of single or double precision by default", found, mend)
    with training(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def looking() -> Iterator[None]:
    """This thread's turn to run programs, for a moment; other threads that look are waited for.

    Raises:
        InputError: if another thread trains.
    """
    with _turns.taken(training=False):
        yield

"""Schedules of beta over the epochs, from a number or from text.

A new one is a frozen dataclass with ``at(epoch)`` and ``final``, entered in ``SCHEDULES``; its fields, in order, are
what follows its name in the text: ``linear:START:END:EPOCHS``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

from pyro_vae.errors import InputError


class Schedule(Protocol):
    """A value that changes over the run.

    Example:
        >>> from pyro_vae.training import Schedule, parse_schedule
        >>> schedule: Schedule = parse_schedule("linear:0:1:10")
        >>> schedule.at(5), schedule.final, schedule.length
        (0.5, 1.0, 10.0)
    """

    def at(self, epoch: float) -> float:
        """The value after ``epoch`` epochs, fractions included."""

    @property
    def final(self) -> float:
        """The value at which it stays in the end."""

    @property
    def length(self) -> float:
        """The number of epochs after which it stays there."""


@dataclass(frozen=True)
class Constant:
    """A schedule that has the same value throughout.

    Example:
        >>> from pyro_vae.training import Constant
        >>> beta = Constant(4.0)
        >>> print(beta)
        beta 4
        >>> beta.at(0), beta.at(50)
        (4.0, 4.0)
    """

    value: float

    def __post_init__(self) -> None:
        _check("a beta", self.value)

    def at(self, epoch: float) -> float:
        return self.value

    def __str__(self) -> str:
        return f"beta {self.value:g}"

    @property
    def final(self) -> float:
        return self.value

    @property
    def length(self) -> float:
        return 0.0


@dataclass(frozen=True)
class _Ramp:
    """What takes ``epochs`` to get from ``start`` to ``end`` for good."""

    start: float
    end: float
    epochs: float

    @property
    def final(self) -> float:
        return self.end

    @property
    def length(self) -> float:
        return self.epochs


@dataclass(frozen=True)
class Linear(_Ramp):
    """A schedule from ``start`` to ``end`` in a straight line over ``epochs``, step by step; ``end`` from then on.

    Example:
        >>> from pyro_vae.training import Linear
        >>> beta = Linear(0.0, 1.0, epochs=10)
        >>> print(beta)
        beta rises from 0 to 1 over the first 10 epochs
        >>> [beta.at(epoch) for epoch in (0, 2.5, 10, 80)]
        [0.0, 0.25, 1.0, 1.0]
    """

    def __post_init__(self) -> None:
        _check("a first beta", self.start)
        _check("a last beta", self.end)
        _check("a number of warm-up epochs", self.epochs)

    def __str__(self) -> str:
        verb = "rises" if self.end >= self.start else "falls"
        return f"beta {verb} from {self.start:g} to {self.end:g} over {_first(self.epochs)}"

    def at(self, epoch: float) -> float:
        done = min(1.0, epoch / self.epochs) if self.epochs else 1.0
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class Cyclical(_Ramp):
    """A schedule that rises from ``start`` to ``end`` in half of each of ``cycles`` cycles; ``end`` after ``epochs``.

    Fu et al., *Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing*, 2019.

    Example:
        >>> from pyro_vae.training import Cyclical
        >>> beta = Cyclical(0.0, 1.0, epochs=16, cycles=4)
        >>> [beta.at(epoch) for epoch in range(9)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
    """

    cycles: float

    def __post_init__(self) -> None:
        _check("a lowest beta", self.start)
        _check("a highest beta", self.end)
        _check("a number of epochs", self.epochs)
        if self.cycles < 1 or self.cycles != int(self.cycles):
            raise InputError("a whole number of cycles, at least 1", f"{self.cycles:g}", "try --beta cyclical:0:1:40:4")

    def __str__(self) -> str:
        return f"beta rises {self.cycles:g} times from {self.start:g} to {self.end:g} over {_first(self.epochs)}"

    def at(self, epoch: float) -> float:
        if epoch >= self.epochs:
            return self.end
        done = math.fmod(epoch * self.cycles / self.epochs, 1.0)
        return self.start + (self.end - self.start) * min(1.0, 2 * done)


SCHEDULES: dict[str, type[Linear] | type[Cyclical]] = {"linear": Linear, "cyclical": Cyclical}
_FORMS = "a number, linear:START:END:EPOCHS or cyclical:START:END:EPOCHS:CYCLES"


def parse_schedule(text: float | str) -> Schedule:
    """Read a schedule from a number or from text such as ``linear:0:1:10``.

    Raises:
        InputError: if it is neither, or a value is negative or not a number.

    Example:
        >>> from pyro_vae.training import parse_schedule
        >>> parse_schedule(4)
        Constant(value=4.0)
        >>> parse_schedule("cyclical:0:1:40:4")
        Cyclical(start=0.0, end=1.0, epochs=40.0, cycles=4.0)
    """
    name, _, rest = str(text).partition(":")
    try:
        if not rest:
            return Constant(float(name))
        kind = SCHEDULES[name]
        values = [float(value) for value in rest.split(":")]
        if len(values) != len(fields(kind)):
            raise ValueError(text)
    except (KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a beta that is {_FORMS}", repr(text), "try --beta 4 or --beta linear:0:1:10") from None
    return kind(*values)


def _check(what: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{what} of at least 0", f"{value:g}", "try --beta 1 or --beta linear:0:1:10")


def _first(epochs: float) -> str:
    return "the first epoch" if epochs == 1 else f"the first {epochs:g} epochs"

"""What the calls of an estimator gave, and what they took.

``logged`` derives a class from an estimator, stock or compiled, that notes every call which a program makes of it.
Calls that an estimator makes of itself are not noted, and a call of a class that a program derives from it is noted
once.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO

from benchmarks.compatibility import patching


class Enough(BaseException):
    """As many calls as were asked for."""


@dataclass
class Log:
    """The calls of one run of a program, in order.

    Attributes:
        most: calls after which the program is ended; 0 for no limit.
        losses: what each gave, nats.
        seconds: what each took, without the noting.
        starts: when each began, seconds on the clock of ``time.perf_counter``.
        graphs: compiled so far for the programs of that call, before it.
        compiled: graphs of every pair of programs, by estimator and pair.
    """

    most: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    graphs: list[int] = field(default_factory=list)
    compiled: dict[str, int] = field(default_factory=dict)
    _depth: int = 0

    def call(self, estimator: ELBO, method: str, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and note it if it is a program's own."""
        if self._depth:
            return original(*args, **kwargs)
        if self.most and len(self.losses) >= self.most:
            raise Enough
        before = self._count(estimator, args)
        self._depth += 1
        start = time.perf_counter()
        try:
            result = original(*args, **kwargs)
        finally:
            self._depth -= 1
        self.starts.append(start)
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(result.detach() if isinstance(result, torch.Tensor) else result))
        self.graphs.append(before)
        self._count(estimator, args)
        return result

    def _count(self, estimator: ELBO, args: tuple[Any, ...]) -> int:
        count = getattr(estimator, "num_graphs", None)
        if count is None or len(args) < 2:
            return 0
        number: int = count(*args[:2])
        pair = f"{id(estimator)} {_identity(args[0])} {_identity(args[1])}"
        self.compiled[pair] = max(number, self.compiled.get(pair, 0))
        return number

    def to_dict(self) -> dict[str, Any]:
        """The log as plain values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


def _identity(program: Any) -> str:
    """Which program it is: a method is made anew whenever it is read off its object."""
    return f"{id(getattr(program, '__self__', program))} {getattr(program, '__name__', '')}"


def logged(name: str, kind: type[ELBO], log: Log) -> type[ELBO]:
    """A class like an estimator's, whose calls are noted.

    Args:
        name: of the class.
        kind: the estimator's class.
        log: where they are noted.
    """

    def noting(method: str) -> Any:
        original = getattr(kind, method)

        def call(self: ELBO, *args: Any, **kwargs: Any) -> Any:
            return log.call(self, method, original.__get__(self), args, kwargs)

        return call

    body = {method: noting(method) for method in patching.METHODS if hasattr(kind, method)}
    return type(name, (kind,), body)

"""Pairs of programs that were called once, by the code that they are written in."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

from pyro_vae.compiled.readings import Call

_MOST = 256  # pairs that are remembered


class Acquaintances:
    """Pairs of programs of the same code that were called once: whoever makes them anew at each step gains nothing."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def meet(self, name: str, call: Call) -> int:
        """Note the first call of a pair; the number of such calls of its kind that no second one followed."""
        key = self._key(name, call)
        if len(self._counts) > _MOST:
            self._counts.clear()
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]

    def forget(self, name: str, call: Call) -> None:
        """Note the second call of a pair."""
        if self._counts:
            self._counts.pop(self._key(name, call), None)

    def _key(self, name: str, call: Call) -> Hashable:
        return name, call.method, _code(call.model), _code(call.guide)


ACQUAINTANCES = Acquaintances()  # of all estimators


def _code(program: Any) -> Hashable:
    """What a program is written in: a number, so that nothing is kept alive."""
    while isinstance(program, functools.partial):
        program = program.func
    program = getattr(program, "__func__", program)
    return id(getattr(program, "__code__", type(program)))

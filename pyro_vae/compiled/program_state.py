"""What programs hold in Python, so that a change of it is noticed.

A graph is what Python did on one run.  A switch that lies outside the arguments, ``self.training`` or a number that a
function closes over, may be another one at the next call; then the graph is of another program.  So before every call
the state of the programs is read: what they can reach through the globals, variables and attributes that their code
loads (see ``reads``), and through lists, dictionaries and other objects held there.  What a training loop keeps beside
its programs, under whatever name, does not count.

Three kinds of things are told apart.  *Tensors* are known by shape, dtype and the like: their values, and which tensor
is bound where, may differ from call to call.  *Numbers* are given apart, since one that changes can be handed over as
a tensor.  Everything else, switches, words, code, is the *form* of the programs.

Reading everything takes milliseconds, so it is done only after something was rebound that changes the form: until then
a call compares the identities of what is held with those of last time.
"""

from __future__ import annotations

import itertools
import random
import types
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyro_vae.compiled.contents import Unwatchable
from pyro_vae.compiled.parameters import Stored
from pyro_vae.compiled.places import ABSENT, Place
from pyro_vae.compiled.reads import Reads
from pyro_vae.compiled.walk import TENSOR, Number, Serials, Walk

MOST_STATES = 256  # that are told apart

Roots = tuple[tuple[str, Any], ...]
Form = tuple[tuple[tuple[str, Hashable], ...], tuple[bool, ...]]


@dataclass(frozen=True)
class State:
    """The state of some programs; two with equal forms and numbers are the same program.

    Args:
        form: the number of everything but the numbers and tensors.
        numbers: every number that the programs hold, by its path.
    """

    form: int
    numbers: dict[str, Number]


class Watch:
    """The state of some programs, read before every call.

    Nothing here keeps a program alive.
    """

    def __init__(self) -> None:
        self._walk: Walk | None = None
        self._roots: tuple[Hashable, ...] = ()
        self._reads = Reads()
        self._serials = Serials()
        self._forms: dict[Form, int] = {}
        self._state: State | None = None
        self._trained: list[bool] = []

    def read(self, programs: Roots) -> State:
        """The present state of programs, which are given with what they are called.

        Raises:
            Unwatchable: if they hold what can change unseen, or were in too many states.
        """
        roots = tuple(identity(program) for _, program in programs)
        walk, old = self._walk, self._state
        numbers = None
        if walk is not None and old is not None and roots == self._roots:
            numbers = walk.refresh(old.numbers)
        if walk is None or numbers is None:
            self._state = old = None  # until everything has been looked at
            walk = self._walk = self._walk_all(programs)
            self._roots, numbers = roots, walk.numbers
        trained = walk.trained()
        if old is None or numbers is not old.numbers or trained != self._trained:
            self._trained = trained
            self._state = State(self._form((tuple(walk.entries.items()), tuple(trained))), numbers)
        return cast(State, self._state)

    @property
    def walk(self) -> Walk:
        """What was found last."""
        assert self._walk is not None
        return self._walk

    def difference(self, before: int, after: int) -> list[str]:
        """What differs between two forms but for the shapes of tensors, one text per entry."""
        forms = {number: dict(entries) for (entries, _), number in self._forms.items() if number in (before, after)}
        old, new = forms[before], forms[after]
        paths = (path for path in dict.fromkeys((*old, *new)) if _differ(old.get(path), new.get(path)))
        return [f"{path}: {_shown(old.get(path))} to {_shown(new.get(path))}" for path in paths]

    def _walk_all(self, programs: Roots) -> Walk:
        while True:  # until no further code is found that reads further names
            walk = Walk(self._reads, self._serials)
            for name, program in programs:
                walk.visit(name, program)
            if walk.reads | self._reads == self._reads:
                return walk
            self._reads |= walk.reads

    def learn(self, other: Watch) -> bool:
        """Look for what the code that another watch has found reads, too; whether that is anything new."""
        known = self._reads | other._reads
        if known == self._reads:
            return False
        self._reads, self._walk, self._state = known, None, None
        return True

    def _form(self, entries: Form) -> int:
        if entries not in self._forms and len(self._forms) >= MOST_STATES:
            raise Unwatchable(f"the programs were in more than {MOST_STATES} states")
        return self._forms.setdefault(entries, len(self._forms))


class Marks:
    """What programs hold, to be compared with later, and to go back to after a run that failed.

    Args:
        walks: what was found before the run.
    """

    def __init__(self, walks: Iterable[Walk]) -> None:
        walks = tuple(walks)
        holders = itertools.chain(*((*walk.holders, *walk.written) for walk in walks))
        self._values = [(holder, holder.values()) for holder in holders]
        self._stored = Stored()
        self._parameters = self._stored.values()
        generators = itertools.chain(*(walk.generators for walk in walks))
        self._generators = [(generator, generator_state(generator)) for generator in generators]

    def restore(self) -> None:
        """Bind everything as it was."""
        for holder, values in self._values:
            holder.put_all(values)
        self.restore_parameters()
        for generator, state in self._generators:
            _set_generator_state(generator, state)

    def made_parameters(self) -> bool:
        """Whether there are parameters in Pyro's store that were not there."""
        return self._stored.made()

    def restore_parameters(self) -> None:
        """Have Pyro's store as it was."""
        self._stored.restore(self._parameters)

    def drew(self) -> bool:
        """Whether the programs have drawn from a generator of their own."""
        return any(not _same(generator_state(generator), state) for generator, state in self._generators)

    def rebound(self) -> Iterable[tuple[str, Place, Any, Any]]:
        """Every place that is bound to something else now: path, place, what it was, and what it is."""
        for holder, values in (*self._values, (self._stored, self._parameters)):
            now = holder.values()
            if len(now) != len(values):
                yield holder.paths[0] if holder.paths else "an attribute", Place(holder, 0), ABSENT, ABSENT
                continue
            for i, (old, new) in enumerate(zip(values, now, strict=True)):
                if old is not new:
                    yield holder.paths[i], Place(holder, i), old, new


def identity(program: Any) -> Hashable:
    """Which program it is; a method is made anew whenever it is read off its object."""
    if isinstance(program, types.MethodType):
        return id(program.__self__), id(program.__func__)
    return id(program)


def generator_state(generator: Any) -> Any:
    """The state of a generator of random numbers, of whatever library."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.state


def _set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.state = state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def _differ(one: Hashable, other: Hashable) -> bool:
    tensors = all(isinstance(entry, tuple) and entry[:1] == (TENSOR,) for entry in (one, other))
    return one != other and not tensors


def _shown(value: Hashable) -> str:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], type):
        if value[0] is float:
            return repr(float.fromhex(value[1]))
        return f"{value[1]} entries" if isinstance(value[1], int) and value[0] is not bool else repr(value[1])
    return "another object"

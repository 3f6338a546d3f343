"""What a call of an estimator depends on, read before it runs.

Calls of one *family* have the same form: that of the arguments, that of the programs, and torch's own switches.  They
differ in numbers alone, and those of one *kind* not even in these.  A number that is another one at a later call of its
family is *lifted*: it is handed over as a tensor from then on, so that an annealed weight makes no graph of its own for
every step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Binomial
from pyro.ops import tensor_utils
from torch import Tensor

from pyro_vae.compiled import validation
from pyro_vae.compiled.arguments import Arguments
from pyro_vae.compiled.contents import Unwatchable, level
from pyro_vae.compiled.places import Place, value_of
from pyro_vae.compiled.program_state import State, Watch
from pyro_vae.compiled.unread import unread
from pyro_vae.compiled.walk import Number, Walk

Program = Callable[..., Any]
Run = Callable[["Call"], Any]  # makes a call as Pyro's own estimator does
TELLS = " (its code tells numbers from tensors, so that a tensor stands for none that changes)"


@dataclass(frozen=True)
class Call:
    """One call of an estimator: its programs, what they are called with, and how the estimator is set.

    Args:
        reads_itself: whether the estimator may look at the arguments, too.
    """

    method: str
    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: Hashable = ()
    reads_itself: bool = True


@dataclass(frozen=True)
class Reading:
    """A call, and all that its graph depends on.

    Args:
        call: the call.
        arguments: what it is called with.
        walks: what the programs, and the objects among the arguments, hold.
        around: the form of the arguments, and torch's own switches.
        kind: the form of it all, and the numbers that are not lifted.
        lifted: the numbers that are, in order.
        state: of the programs.
    """

    call: Call
    arguments: Arguments
    walks: tuple[Walk, ...]
    around: Hashable
    kind: Hashable
    lifted: Mapping[str, Number]
    state: State

    @property
    def bound(self) -> dict[str, Tensor]:
        """The tensors that are held, by path."""
        first, *others = self.walks
        return first.tensors if not others else {**first.tensors, **others[0].tensors}

    @property
    def differentiable(self) -> list[Tensor]:
        """The tensors among the arguments that have a gradient."""
        return [tensor for tensor in self.arguments.tensors if tensor.requires_grad]

    @property
    def inputs(self) -> list[Tensor]:
        """What a graph is run with, besides what the programs hold."""
        return [*self.arguments.tensors, *self.numbers()]

    @property
    def tells_numbers(self) -> bool:
        """Whether the programs may tell numbers from tensors."""
        return any(walk.reads.tells_numbers for walk in self.walks)

    def numbers(self) -> list[Tensor]:
        """The lifted numbers, as tensors."""
        return [as_tensor(number) for number in self.lifted.values()]

    def place(self, path: str) -> Place | None:
        """Where a number is held; None for one that is an argument."""
        return next((walk.places[path] for walk in self.walks if path in walk.places), None)


class Reader:
    """Reads the calls of one pair of programs."""

    def __init__(self) -> None:
        self._programs, self._objects = Watch(), Watch()
        self._last: dict[Hashable, dict[str, Number]] = {}  # the numbers of the last call of each family
        self._lifted: set[str] = set()
        self._fixed: set[str] = set()  # numbers that are never lifted
        self._constants: tuple[State | None, int, Hashable, dict[str, Number]] = (None, -1, (), {})
        self._version = 0

    def read(self, call: Call) -> Reading:
        """What a call depends on.

        Raises:
            Unwatchable: if that cannot be told.
        """
        passed_over = () if call.reads_itself else unread((call.model, call.guide), len(call.args), call.kwargs)
        arguments = Arguments(call.args, call.kwargs, frozenset(passed_over))
        state = self._programs.read((("model", call.model), ("guide", call.guide)))
        walks: tuple[Walk, ...] = (self._programs.walk,)
        numbers, form = arguments.numbers, None
        if arguments.objects:
            state, objects = self._read_objects(call, arguments)
            walks, form = (self._programs.walk, self._objects.walk), objects.form
            numbers = {**numbers, **objects.numbers}
        around = _around(call, arguments)
        family = (around, state.form, form)
        self._lift(family, numbers, state.numbers)
        own, lifted = self._split(state)
        kind = (family, own, *((path, value_of(n)) for path, n in numbers.items() if path not in self._lifted))
        chosen = {path: number for path, number in numbers.items() if path in self._lifted}
        return Reading(call, arguments, walks, around, kind, {**chosen, **lifted}, state)

    def never_lift(self, paths: Iterable[str]) -> None:
        """Take some numbers as they are from now on."""
        self._fixed.update(paths)
        self._lifted -= self._fixed
        self._version += 1

    def difference(self, before: int, after: int) -> list[str]:
        """What differs between the programs' forms, one text per entry."""
        return self._programs.difference(before, after)

    def changes(self, before: Reading, after: Reading) -> list[str]:
        """What a run has changed of its own programs, one text per entry; its numbers are not lifted any more."""
        if after.state is before.state:
            return []
        texts = self.difference(before.state.form, after.state.form)
        old, new = before.state.numbers, after.state.numbers
        changed = [path for path in old if path in new and value_of(old[path]) != value_of(new[path])]
        self.never_lift(changed)
        return [*texts, *(f"{path}: {old[path]} to {new[path]}" for path in changed)]

    def _read_objects(self, call: Call, arguments: Arguments) -> tuple[State, State]:
        """The states of programs and objects; code among the one may read attributes of the other."""
        while True:
            programs = self._programs.read((("model", call.model), ("guide", call.guide)))
            objects = self._objects.read(tuple(arguments.objects))
            if not (self._programs.learn(self._objects) | self._objects.learn(self._programs)):
                return programs, objects

    def _lift(self, family: Hashable, *numbers: Mapping[str, Number]) -> None:
        last = self._last.get(family)
        if last is not None and not self._programs.walk.reads.tells_numbers:
            for path, number in ((path, number) for some in numbers for path, number in some.items()):
                if path not in self._fixed and path not in self._lifted and _differ(last.get(path), number):
                    self._lifted.add(path)
                    self._version += 1
        self._last[family] = {path: number for some in numbers for path, number in some.items()}

    def _split(self, state: State) -> tuple[Hashable, dict[str, Number]]:
        """The programs' numbers that are taken as they are, and those that are lifted."""
        known, version, own, lifted = self._constants
        if known is not state or version != self._version:
            own = tuple((path, value_of(n)) for path, n in state.numbers.items() if path not in self._lifted)
            lifted = {path: number for path, number in state.numbers.items() if path in self._lifted}
            self._constants = state, self._version, own, lifted
        return own, lifted


def _around(call: Call, arguments: Arguments) -> Hashable:
    return (call.method, call.settings, arguments.form, _switches())


def as_tensor(number: Number) -> Tensor:
    """A number as a tensor that acts as it would: of torch's default type, or whole."""
    return torch.tensor(number, dtype=torch.get_default_dtype() if isinstance(number, float) else torch.int64)


def _differ(before: Number | None, now: Number) -> bool:
    return before is not None and before is not now and value_of(before) != value_of(now)


def _switches() -> Hashable:
    """Torch's own and Pyro's, which change what an operation does."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_deterministic_debug_mode(),
        level(logging.root),  # of functions such as ``logging.debug``
        validation.is_on(),
        tensor_utils.CHOLESKY_RELATIVE_JITTER,
        Binomial.approx_sample_thresh,
        Binomial.approx_log_prob_tol,
    )


__all__ = ["TELLS", "Call", "Program", "Reader", "Reading", "Unwatchable", "as_tensor"]

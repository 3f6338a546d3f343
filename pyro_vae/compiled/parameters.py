"""The parameters that a run of programs uses, as Pyro's effect handlers see them.

A run tells the handlers around it of every parameter: that is how ``SVI.step`` learns what to optimize.  A graph has no
handlers inside, so the parameters of the run that it came from are found again, and told, at each call.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro
from pyro.poutine import Trace
from pyro.poutine.runtime import _PYRO_STACK, effectful
from torch import Tensor

from pyro_vae.compiled.places import ABSENT, Holder


class Stored(Holder):
    """The unconstrained parameters that are in Pyro's store now, and those that take their place under their names.

    An average that a score-function term is compared with is such a parameter: Pyro's estimator puts another tensor in
    its place at every run.
    """

    def __init__(self) -> None:
        names = list(pyro.get_param_store())
        super().__init__([f"the parameter {name}" for name in names])
        self._names = names
        self._constraints = [pyro.get_param_store()._constraints[name] for name in names]

    def values(self) -> list[Any]:
        store = dict(pyro.get_param_store().named_parameters())
        return [store.get(name, ABSENT) for name in self._names]

    def put(self, index: int, value: Tensor) -> None:
        store, name = pyro.get_param_store(), self._names[index]
        store._params[name] = value.requires_grad_()
        store._param_to_name[value] = name
        store._constraints.setdefault(name, self._constraints[index])

    def made(self) -> bool:
        """Whether the store has parameters under other names by now."""
        return any(name not in self._names for name in pyro.get_param_store())

    def restore(self, values: Sequence[Any]) -> None:
        """Put the parameters back that were there, and drop all others."""
        store = pyro.get_param_store()
        present = zip(self._names, self.values(), values, strict=True)
        changed = [name for name, now, before in present if now is not before and now is not ABSENT]
        for name in [*changed, *(name for name in store if name not in self._names)]:
            store._param_to_name.pop(store._params.pop(name), None)
            store._constraints.pop(name)
        self.put_all(values)


@dataclass(frozen=True)
class Parameter:
    """A parameter statement: its name, and its tensor where that is a module's and none of the parameter store."""

    name: str
    own: Tensor | None


def used(trace: Trace) -> list[Parameter]:
    """The parameters of a run."""
    store = dict(pyro.get_param_store().named_parameters())
    parameters = []
    for name, site in trace.nodes.items():
        if site["type"] == "param":
            tensor = getattr(site["value"], "unconstrained", lambda value=site["value"]: value)()
            parameters.append(Parameter(name, None if store.get(name) is tensor else tensor))
    return parameters


def find(parameters: Sequence[Parameter]) -> list[Tensor] | None:
    """The parameters' present unconstrained values; None if the parameter store was cleared."""
    store = dict(pyro.get_param_store().named_parameters())
    found = [store.get(parameter.name) if parameter.own is None else parameter.own for parameter in parameters]
    present = [tensor for tensor in found if tensor is not None]
    return present if len(present) == len(found) else None


def announce(parameters: Sequence[Parameter]) -> None:
    """Tell the handlers around the call which parameters were used."""
    if not _PYRO_STACK:
        return
    for parameter in parameters:
        if parameter.own is None:
            pyro.param(parameter.name)
        else:
            effectful(type="param")(_view)(parameter.own, name=parameter.name)


def _view(own: Tensor) -> Tensor:
    value = own.detach()
    value.unconstrained = weakref.ref(own)  # type: ignore[attr-defined]  # as Pyro's own values have it
    return value

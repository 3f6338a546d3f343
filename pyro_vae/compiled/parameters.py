"""The parameters that a run of programs uses, as Pyro's effect handlers see them.

A run tells the handlers around it of every parameter: that is how ``SVI.step`` learns what to optimize.  A graph has no
handlers inside, so the parameters of the run that it came from are found again, and told, at each call.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import pyro
from pyro.poutine import Trace
from pyro.poutine.runtime import _PYRO_STACK, effectful
from torch import Tensor


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
    """Their present unconstrained values; None if the parameter store was cleared."""
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

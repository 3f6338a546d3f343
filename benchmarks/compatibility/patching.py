"""Other classes in the place of Pyro's estimators, wherever Pyro has them.

A program is not changed: ``from pyro.infer import Trace_ELBO`` gives it another class.  Pyro's own modules, which
imported the stock classes before, are given the others, too; modules that are imported later find them by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import pyro.infer
from pyro.infer import ELBO

import pyro_vae.compiled as ours
from pyro_vae.compiled import lowering, payoff, recorded_graph

METHODS = ("loss", "loss_and_grads", "differentiable_loss")
STOCK: dict[str, type[ELBO]] = {
    name: getattr(pyro.infer, name)
    for name in ("Trace_ELBO", "TraceEnum_ELBO", "TraceGraph_ELBO", "TraceMeanField_ELBO", "TraceTMC_ELBO", "RenyiELBO")
}
JIT: dict[str, type[ELBO]] = {
    f"Jit{name}": getattr(pyro.infer, f"Jit{name}") for name in STOCK if hasattr(pyro.infer, f"Jit{name}")
}


def compiled(name: str) -> type[ELBO] | None:
    """The compiled estimator in the place of a stock one; None where there is none."""
    kind: type[ELBO] | None = getattr(ours, f"Compiled{name.removeprefix('Jit')}", None)
    return kind


def replace(replacements: Mapping[str, type[ELBO]]) -> None:
    """Put classes in the place of estimators.

    Args:
        replacements: a class for each name of an estimator.
    """
    known = {**STOCK, **JIT}
    places = {id(known[name]): replacement for name, replacement in replacements.items()}
    for module_name, module in list(sys.modules.items()):
        if module_name != "pyro" and not module_name.startswith("pyro."):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and id(value) in places:
                setattr(module, name, places[id(value)])


def set_way(way: str) -> None:
    """Let graphs be run in one way from the beginning.

    Args:
        way: ``compiled`` as users have it: replayed as recorded, until compiling has paid; ``at once``: compiled when
            they first run; ``replayed``: never compiled.  The last two record every pair at its second call.
    """
    if way in ("at once", "replayed"):
        payoff.RECORDED_AT_ONCE = 10**6
        payoff.Credit.shared = 10**9
    if way == "at once":
        payoff.CompileEstimate.is_due = property(lambda estimate: True)  # type: ignore[assignment]
    if way == "replayed":
        vars(recorded_graph)["compile_recording"] = lambda recording, inputs: lowering.interpret(recording)


def choices(way: str, wrap: Callable[[str, type[ELBO]], type[ELBO]]) -> dict[str, type[ELBO]]:
    """A wrapped class for every estimator.

    Args:
        way: ``stock`` for Pyro's own; anything else for those of pyro_vae.
        wrap: makes the class that programs see, of the stock name and a class.
    """
    found = {}
    for name, stock in {**STOCK, **JIT}.items():
        kind = stock if way == "stock" else compiled(name)
        found[name] = wrap(name, kind or stock)
    return found

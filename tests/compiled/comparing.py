"""A compiled estimator next to the stock one: the same calls, at the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor

from pyro_vae.compiled import CompiledELBO

Program = Callable[..., Any]
Make = Callable[[], tuple[Program, Program]]


@dataclass
class Call:
    """What a step is taken with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Sequel:
    """What a sequence of calls gave."""

    losses: list[float]
    parameters: dict[str, Tensor]
    num_graphs: int = 0


def call(*args: Any, **kwargs: Any) -> Call:
    return Call(args, kwargs)


def stock_of(kind: type[CompiledELBO]) -> type[ELBO]:
    """The class of Pyro that is compiled."""
    classes = kind.__mro__
    return next(found for found in classes[classes.index(CompiledELBO) :] if found is not CompiledELBO)


def run(make: Make, elbo: Any, steps: Sequence[Call], evaluations: Sequence[Call] = ()) -> Sequel:
    """Make the programs anew, and take steps of Adam; then evaluate."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    model, guide = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), elbo)
    losses = [svi.step(*step.args, **step.kwargs) for step in steps]
    losses += [svi.evaluate_loss(*step.args, **step.kwargs) for step in evaluations]
    parameters = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    num_graphs = elbo.num_graphs(model, guide) if isinstance(elbo, CompiledELBO) else 0
    return Sequel(losses, parameters, num_graphs)


def assert_equal(ours: Sequel, stock: Sequel) -> None:
    assert ours.losses == pytest.approx(stock.losses, rel=1e-4)
    assert ours.parameters.keys() == stock.parameters.keys()
    torch.testing.assert_close(ours.parameters, stock.parameters, rtol=1e-4, atol=1e-6)


def compare(
    make: Make, kind: type[CompiledELBO], steps: Sequence[Call], evaluations: Sequence[Call] = (), **options: Any
) -> int:
    """Both estimators give the same losses and parameters; how many graphs were compiled."""
    ours, stock = (
        run(make, kind(**options), steps, evaluations),
        run(make, stock_of(kind)(**options), steps, evaluations),
    )
    assert_equal(ours, stock)
    assert len(set(stock.losses)) >= len(steps)  # so that the value of one step does not pass for another's
    return ours.num_graphs

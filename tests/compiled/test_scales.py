"""Scales and other numbers that change from call to call: inputs of one graph, and what is said of wrong ones."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

from pyro_vae.compiled import CompiledTrace_ELBO, CompiledTraceEnum_ELBO
from tests.compiled.agreeing import DATA, gaussian, guide

pytestmark = pytest.mark.usefixtures("uncompiled")


@config_enumerate
def mixture(x, scale, likelihood_scale):
    with pyro.plate("data", len(x)):
        with pyro.poutine.scale(scale=1 / scale):
            k = pyro.sample("k", dist.Categorical(pyro.param("weights", torch.tensor([0.2, 0.3, 0.5]))))
        with pyro.poutine.scale(scale=1 / likelihood_scale):
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)


def nothing(*args):
    pass


def tempered(x, scale):
    with pyro.poutine.scale(scale=scale):
        gaussian(x)


def outcomes(elbo, model, model_guide, calls) -> list[float]:
    """The losses of some calls; NaN for one that raises."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    found = []
    for arguments in calls:
        try:
            found.append(elbo.loss_and_grads(model, model_guide, DATA, *arguments))
        except (ValueError, ZeroDivisionError):
            found.append(float("nan"))
    return found


@pytest.mark.parametrize("validate", [True, False])
def test_an_annealed_scale_of_enumerated_sites_is_an_input_and_unequal_ones_raise(validate):
    calls = [(scale, 1.0 if scale == 6.0 else scale) for scale in torch.arange(1.0, 13.0).tolist()]
    elbo = CompiledTraceEnum_ELBO(max_plate_nesting=1)
    with pyro.validation_enabled(validate):
        ours = outcomes(elbo, mixture, nothing, calls)
        stock = outcomes(TraceEnum_ELBO(max_plate_nesting=1), mixture, nothing, calls)
    assert ours == pytest.approx(stock, rel=1e-5, nan_ok=True)
    assert [loss != loss for loss in ours] == [scale == 6.0 for scale, _ in calls]
    assert elbo.num_graphs(mixture, nothing) == 1


@pytest.mark.parametrize("validate", [True, False])
def test_a_scale_that_is_annealed_to_nothing_raises_as_it_does_without_a_graph(validate):
    calls = [(1.0 - 0.125 * i,) for i in range(10)]
    with pyro.validation_enabled(validate):
        ours, stock = (outcomes(kind(), tempered, guide, calls) for kind in (CompiledTrace_ELBO, Trace_ELBO))
    assert ours == pytest.approx(stock, rel=1e-5, nan_ok=True)
    assert [loss != loss for loss in ours] == [False] * 8 + [True] * 2


@pytest.mark.parametrize("validate", [True, False])
def test_a_number_that_python_cannot_divide_by_raises_as_it_does_without_a_graph(validate):
    def cooled(x, temperature):
        gaussian(x, offset=torch.tensor(1 / temperature).tanh())

    calls = [(1.0 - 0.125 * i,) for i in range(10)]
    with pyro.validation_enabled(validate):
        ours, stock = (outcomes(kind(), cooled, guide, calls) for kind in (CompiledTrace_ELBO, Trace_ELBO))
    assert ours == pytest.approx(stock, rel=1e-5, nan_ok=True)
    assert [loss != loss for loss in ours] == [i == 8 for i in range(10)]

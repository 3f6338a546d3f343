"""What programs and Pyro ask of values that a graph can answer itself."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.compiled import CompiledTrace_ELBO
from tests.compiled.agreeing import DATA
from tests.compiled.comparing import call, compare

pytestmark = pytest.mark.usefixtures("uncompiled")


def assigned(x):
    """Numbers, plain and computed, assigned to elements and to rows that a mask chooses; whole numbers, too."""
    z = pyro.sample("z", dist.Normal(torch.zeros(6, 2), 1.0).to_event(2))
    z = z.clone()
    z[x > 0.5] = 0.25
    z[z < x.min() - 1.0] = z.mean()
    count = torch.ones(6, dtype=torch.long)
    count[x > 0.0] = 2.7
    pyro.sample("x", dist.Normal(z.sum(1) * count, 1.0).to_event(1), obs=x)


def correlated(x):
    """A covariance, of which validation asks whether it is symmetric before it asks the rest."""
    z = pyro.sample("z", dist.Normal(torch.zeros(6, 2), 1.0).to_event(2))
    covariance = torch.eye(6) + z @ z.T
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(6), covariance * (1.0 + 0.0 * x)), obs=x)


def two_numbers_per_datum(x):
    loc = pyro.param("loc", torch.zeros(6, 2))
    pyro.sample("z", dist.Normal(loc, 1.0).to_event(2))


@pytest.mark.parametrize("model", [assigned, correlated])
def test_what_is_asked_of_values_and_can_be_answered_is_a_graph(model):
    calls = [call(DATA + 0.25 * i) for i in range(6)]
    assert compare(lambda: (model, two_numbers_per_datum), CompiledTrace_ELBO, calls) == 1


def test_a_covariance_that_is_not_symmetric_raises_as_it_does_without_a_graph():
    def model(x, shear):
        pyro.sample("z", dist.Normal(torch.zeros(6, 2), 1.0).to_event(2))
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(6), torch.eye(6) + shear), obs=x)

    def model_guide(x, shear):
        two_numbers_per_datum(x)

    elbo = CompiledTrace_ELBO()
    for _ in range(5):
        elbo.loss_and_grads(model, model_guide, DATA, torch.zeros(6, 6))
    assert elbo.num_graphs(model, model_guide) == 1
    with pytest.raises(ValueError, match="PositiveDefinite"):
        elbo.loss_and_grads(model, model_guide, DATA, 0.5 * torch.ones(6, 6).triu(1))

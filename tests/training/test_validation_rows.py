"""Which epoch of a run is kept."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import nn

import pyro_vae
from pyro_vae.pairs import Pair
from pyro_vae.training.validation_rows import keeps_last

SETTINGS = {"labels": "none", "display": False, "compile": "off"}


@config_enumerate
def mixture(x):
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2)))
        pyro.sample("x", dist.Normal(means[k].unsqueeze(-1), 1.0).to_event(1), obs=x)


@pytest.mark.exhaustive
def test_two_parameters_end_where_the_training_rows_lead():
    """Thirty validation rows would stop at 0.2 from there; the maximum of the likelihood is found by EM."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(150) - 3, torch.randn(150) + 3])[torch.randperm(300)][:, None]
    run = pyro_vae.fit(mixture, lambda x: None, data=x, epochs=60, lr=0.05, batch_size=50, **SETTINGS)
    rows, means = run.data.train.values(), torch.tensor([-1.0, 1.0])
    for _ in range(50):
        share = dist.Normal(means, 1.0).log_prob(rows).softmax(1)
        means = (share * rows).sum(0) / share.sum(0)
    torch.testing.assert_close(run.pair.values()["means"].sort().values, means, atol=0.05, rtol=0)
    assert len(run.history) == 60
    assert run.history["validation_elbo"].argmax() < 20, "rows that choose badly"


@pytest.mark.parametrize(("num_rows", "found"), [(500, True), (50, False)])
def test_few_are_a_tenth_of_the_training_rows(num_rows, found):
    """A decoder of 9 numbers, and 2 scales."""
    model = nn.Linear(2, 3)

    def program(x):
        pyro.module("decoder", model)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(model(z), 1.0).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], scale).to_event(1))

    assert keeps_last(Pair(program, guide).probe(torch.randn(20, 3)), num_rows) is found

"""Observations whose support has a bound for each row of a batch."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

import pyro_vae
from tests.conftest import FAST


def test_counts_of_trials_are_fitted_though_their_bound_is_a_tensor_of_a_batch():
    x = torch.randint(11, (60, 1), generator=torch.Generator().manual_seed(0)).float()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Binomial(torch.full(z.shape, 10.0), logits=z), obs=x[:, 0])

    def guide(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc + 0.3 * (x[:, 0] - 5), 0.6))

    settings = FAST | {"display": False, "compile": "off", "labels": "none", "hidden": None}
    run = pyro_vae.fit(model, guide, data=x, **settings)
    test, z = run.data.test.values(), torch.linspace(-6, 6, 1201)
    density = dist.Normal(0.0, 1.0).log_prob(z) + dist.Binomial(10, logits=z).log_prob(test)
    exact = -(density.logsumexp(-1) + torch.tensor(0.01).log()).mean()
    assert torch.allclose(torch.tensor(run.evaluate(num_samples=2000)["nll"]), exact, atol=0.05)

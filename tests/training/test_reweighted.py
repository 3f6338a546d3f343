"""Programs that weigh their latents themselves end where their own objective leads."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae
from pyro_vae.pairs import Pair

X = 3 * torch.randn(60, 1, generator=torch.Generator().manual_seed(0))


def programs(latents=1.0, everything=1.0, rows=None):
    def plate(x):
        return pyro.plate("data", rows or len(x), subsample=torch.arange(len(x)) if rows else None)

    def model(x):
        with plate(x), pyro.poutine.scale(scale=everything):
            with pyro.poutine.scale(scale=latents):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)

    def guide(x):
        weight = pyro.param("weight", torch.tensor(0.4))
        with plate(x), pyro.poutine.scale(scale=latents * everything):
            pyro.sample("z", dist.Normal(weight * x[:, 0], 0.5))

    return model, guide


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, False),
        ({"latents": 0.125}, True),
        ({"latents": torch.tensor(4.0)}, True),
        ({"everything": 0.01}, False),
        ({"rows": 1000}, False),
        ({"rows": 1000, "latents": 2.0}, True),
    ],
)
def test_what_weighs_latents_is_seen(given, found):
    assert Pair(*programs(**given)).probe(X).reweighted is found


@pytest.mark.exhaustive
def test_a_weight_of_the_kl_is_trained_for_to_the_end():
    settings = {"labels": "none", "display": False, "compile": "off", "epochs": 100, "lr": 0.05, "batch_size": 48}
    run = pyro_vae.fit(*programs(latents=0.125), data=X, **settings)
    weight = run.pair.values()["weight"].item()
    assert weight == pytest.approx(1 / 1.125, abs=0.03)  # of (x - w x)^2 + (w x)^2 / 8; the ELBO without it wants 1 / 2

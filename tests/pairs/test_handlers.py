"""Handlers of our own: what an unconditioned program draws."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import pyro_vae
from pyro_vae.pairs.handlers import unconditioned


def effects(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        effect = pyro.deterministic("effect", mean + 0.5 * raw)
        pyro.sample("x", dist.Normal(effect, 1.0), obs=x[:, 0])


def test_a_deterministic_value_in_a_plate_keeps_its_shape():
    """Pyro's uncondition draws it, N values for each of N rows; observations are drawn by both."""
    x = torch.zeros(4, 1)
    trace = poutine.trace(unconditioned(effects)).get_trace(x)
    nodes = trace.nodes
    torch.testing.assert_close(nodes["effect"]["value"], nodes["mean"]["value"] + 0.5 * nodes["raw"]["value"])
    assert nodes["x"]["value"].shape == (4,)
    assert nodes["x"]["value"].any()


def test_data_are_made_of_deterministic_values_in_the_plate():
    x = torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    run = pyro_vae.fit(effects, "mean_field", data=x, epochs=1, hidden=(4,), compile="off", display=False)
    assert run.sample(5).shape == (5, 1)
    assert run.reconstruct(x[:3]).shape == (3, 1)
    assert run.to_arviz(num_data=3, num_draws=4)["posterior_predictive"]["x"].shape == (1, 4, 3)

"""Latents that all rows share: every batch bears its part of their terms."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair

ROWS = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))


def programs(size=None):
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 0.5).to_event(1))
        pyro.factor("penalty", -w.abs().sum(-1))
        rows = {"subsample": torch.arange(len(x))} if size else {}
        with pyro.plate("rows", size or len(x), **rows):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def guide(x):  # without noise, so that losses can be compared
        pyro.sample("w", dist.Delta(pyro.param("loc", torch.tensor([0.3, -0.2])), event_dim=1))

    return Pair(model, guide)


def stock(pair, x):
    with pair.scope():
        return Trace_ELBO().differentiable_loss(pair.model, pair.guide, x)


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_batches_add_up_to_the_whole(size):
    pair = programs()
    probed = pair.probe(ROWS[:5], num_rows=len(ROWS))
    assert (probed.shared, probed.data_dim, probed.plate_dim) == (("w", "penalty"), None, -1)
    objective = OBJECTIVES.build("elbo", probed=probed)
    losses = torch.stack([objective(batch) for batch in ROWS.split(size)])
    torch.testing.assert_close(losses.mean(), stock(pair, ROWS) / len(ROWS))


def test_without_a_word_on_the_whole_each_call_is_one():
    pair = programs()
    objective = OBJECTIVES.build("elbo", probed=pair.probe(ROWS))
    torch.testing.assert_close(objective(ROWS), stock(pair, ROWS) / len(ROWS))


def test_a_plate_that_says_its_size_is_believed():
    pair = programs(size=60)
    probed = pair.probe(ROWS, num_rows=len(ROWS))
    assert probed.plate_size == 60
    torch.testing.assert_close(OBJECTIVES.build("elbo", probed=probed)(ROWS), stock(pair, ROWS) / 60)


def test_beta_weighs_shared_latents_too():
    pair = programs()
    objective = OBJECTIVES.build("elbo", probed=pair.probe(ROWS, num_rows=len(ROWS)))
    difference = objective(ROWS, beta=1.0) - objective(ROWS, beta=0.5)
    prior = dist.Normal(0.0, 0.5).log_prob(torch.tensor([0.3, -0.2])).sum()
    torch.testing.assert_close(difference, -0.5 * prior / len(ROWS))

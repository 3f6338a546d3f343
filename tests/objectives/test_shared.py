"""Latents that all rows share: every batch bears its part of their terms."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae.errors import InputError
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


def groups(with_label=False):
    """Group effects around a shared mean, and the guide that is their exact posterior."""
    scale = (1 / 25 + len(ROWS) / 2) ** -0.5

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", len(x)):
            effect = pyro.sample("effect", dist.Normal(mean, 1.0))
            if with_label:
                k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
                pyro.sample("sign", dist.Normal(4 * k + effect, 1.0), obs=x[:, 1])
            pyro.sample("x", dist.Normal(effect, 1.0), obs=x[:, 0])

    def guide(x):
        loc = pyro.param("loc", scale**2 * ROWS[:, 0].sum() / 2)
        mean = pyro.sample("mean", dist.Normal(loc, pyro.param("scale", torch.tensor(scale))))
        with pyro.plate("groups", len(x)):
            center = pyro.param("center", torch.tensor(0.5)) * (x[:, 0] + mean)
            pyro.sample("effect", dist.Normal(center, pyro.param("width", torch.tensor(0.5**0.5))))

    return Pair(model, guide)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_sticking_the_landing_has_no_noise_where_a_guide_with_shared_latents_is_exact(num_samples):
    pair = groups()
    objective = OBJECTIVES.build(f"stl:num_samples={num_samples}", probed=pair.probe(ROWS, num_rows=len(ROWS)))
    loss = objective(ROWS)
    parameters = [*pair.parameters().values()]
    ours, theirs = (torch.autograd.grad(each, parameters) for each in (loss, stock(pair, ROWS) / len(ROWS)))
    assert max(grad.abs().item() for grad in ours) < 1e-6 < 1e-3 < max(grad.abs().item() for grad in theirs)
    covariance = torch.full((12, 12), 25.0) + 2 * torch.eye(12)
    evidence = dist.MultivariateNormal(torch.zeros(12), covariance).log_prob(ROWS[:, 0])
    torch.testing.assert_close(loss, -evidence / len(ROWS))


@pytest.mark.parametrize("with_label", [False, True])
def test_sticking_the_landing_is_the_elbo_of_a_batch(with_label):
    pair = groups(with_label)
    probed, found = pair.probe(ROWS[:5], num_rows=len(ROWS)), []
    with pair.scope():
        pyro.get_param_store()["loc"] = torch.tensor(2.0)
        pyro.get_param_store()["width"] = torch.tensor(0.4)
    for name in ("elbo", "stl"):
        torch.manual_seed(0)
        found.append(OBJECTIVES.build(name, probed=probed)(ROWS[:4]))
    torch.testing.assert_close(*found)


def test_sticking_the_landing_refuses_a_factor_that_all_rows_share():
    with pytest.raises(InputError, match="every sample site inside"):
        OBJECTIVES.build("stl", probed=programs().probe(ROWS))

"""What the model says of draws: sites that it sums out, likelihoods and data, against sums and runs by hand."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal

from pyro_vae.pairs import Pair
from pyro_vae.posterior import Target
from pyro_vae.posterior.predictive import draw_enumerated, draw_marginal, generate, log_likelihood

MEANS = torch.tensor([-1.0, 0.5, 2.0])
PRIOR = torch.tensor([0.2, 0.5, 0.3])


@config_enumerate
def categories(x):
    with pyro.plate("rows", len(x)):
        e = pyro.sample("e", dist.Categorical(PRIOR))
        pyro.sample("x", dist.Normal(MEANS[e].unsqueeze(-1), 1.0).to_event(1), obs=x)


@config_enumerate
def vectors(x):
    with pyro.plate("rows", len(x)):
        e = pyro.sample("e", dist.OneHotCategorical(PRIOR))
        pyro.sample("x", dist.Normal((e * MEANS).sum(-1, keepdim=True), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("model", [categories, vectors])
def test_what_is_summed_out_is_drawn_given_the_data(model):
    x = torch.tensor([[-1.0], [0.0], [1.0], [3.0]])
    exact = (PRIOR.log() + dist.Normal(MEANS, 1.0).log_prob(x)).softmax(1)
    probed = Pair(model, lambda x: None).probe(x)
    torch.manual_seed(0)
    drawn = draw_enumerated(Target(probed, x.repeat(1000, 1)), {})["e"][0]
    one_hot = drawn if drawn.dim() == 2 else torch.nn.functional.one_hot(drawn.long(), 3).float()
    shares = one_hot.reshape(1000, 4, 3).mean(0)
    assert (one_hot.sum(1) == 1).all()
    torch.testing.assert_close(shares, exact, atol=0.065, rtol=0)  # 4 standard errors: fails once in 1,300 seeds
    assert draw_marginal(probed, x, {})["e"].shape == drawn[:4].shape


def of_one_draw(x):
    calls.append(len(x))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x[:, :2] @ weights, 0.5), obs=x[:, 2])


calls: list[int] = []


@pytest.mark.parametrize("given", [True, False])
def test_draws_of_a_program_that_bears_one_at_a_time_are_those_of_runs_one_by_one(given):
    torch.manual_seed(3)
    x, weights = torch.randn(9, 3), torch.randn(60, 1, 2)
    probed = Pair(of_one_draw, AutoNormal(of_one_draw)).probe(x)
    for begun in (x, x + 1):  # for other data of that shape, the same recording serves
        target = Target(probed, begun)
        assert target.placing == "alone"
        known, names = ({"weights": weights}, ["y"]) if given else ({}, ["weights", "y"])
        generate(target, names, known, 30)
        calls.clear()
        torch.manual_seed(4)
        found = generate(target, names, known, 60)
        assert len(calls) < 20
        torch.manual_seed(4)
        for draw in range(60):
            one = generate(target, names, {"weights": weights[draw : draw + 1]} if given else {}, 1)
            assert all(torch.equal(found[name][draw], one[name][0]) for name in names)


def test_likelihoods_of_a_program_that_bears_one_draw_at_a_time_are_exact():
    torch.manual_seed(3)
    x, weights = torch.randn(9, 3), torch.randn(60, 1, 2)
    target = Target(Pair(of_one_draw, AutoNormal(of_one_draw)).probe(x), x)
    calls.clear()
    found = log_likelihood(target, {"weights": weights})["y"]
    assert len(calls) < 30
    expected = dist.Normal(weights[:, 0] @ x[:, :2].T, 0.5).log_prob(x[:, 2])
    torch.testing.assert_close(found.reshape(60, 9), expected)

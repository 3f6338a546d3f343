"""Sites that the model sums out, drawn from p(e | z, x), against the sum by hand."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate

from pyro_vae.pairs import Pair
from pyro_vae.posterior import Target
from pyro_vae.posterior.predictive import draw_enumerated, draw_marginal

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

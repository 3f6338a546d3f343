"""The mixture guide with equal weights, against torch's own mixture, moments and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_vae.guides import GUIDES, Mixture
from pyro_vae.guides.mixture import EqualMixture
from pyro_vae.models import VAE
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair
from tests.conftest import EVENT_SHAPE, SMALL


def components(size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 4, size, requires_grad=True), torch.rand(5, 4, size) + 0.3


def test_the_density_is_that_of_torch():
    locs, scales = components()
    q = EqualMixture(locs, scales)
    theirs = MixtureSameFamily(Categorical(torch.ones(5, 4)), Independent(Normal(locs, scales), 1))
    z = torch.randn(6, 5, 2)
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(q.mean, theirs.mean)
    torch.testing.assert_close(q.variance, theirs.variance)
    wider = q.expand((3, 5))
    assert (wider.batch_shape, wider.event_shape, wider.rsample((7,)).shape) == ((3, 5), (2,), (7, 3, 5, 2))
    torch.testing.assert_close(wider.log_prob(z[:3]), theirs.log_prob(z[:3]))


def test_draws_and_their_gradients_are_of_the_mixture():
    """E[z^2] = mean_k(mu_k^2 + s_k^2), its gradient 2 mu_k / K: 40,000 draws, 6 standard errors of 30 numbers each, a
    false alarm below 1e-7."""
    locs, scales = components(1)
    z = EqualMixture(locs, scales).rsample((40_000,))
    squares = z.square().squeeze(-1)
    expected = (locs.square() + scales.square()).mean(-2).squeeze(-1)
    assert ((squares.mean(0) - expected).abs() < 6 * squares.std(0) / 200).all()
    (gradient,) = torch.autograd.grad(squares.sum() / 40_000, locs)
    error = 2 * (locs.square() + scales.square()).sqrt() / 2 / 200  # the square root of E[z^2 1(k)], at most
    assert ((gradient - 2 * locs / 4).abs() < 6 * error).all()


def test_the_bound_is_that_of_the_whole_mixture():
    """Where p(x, z) is q(z | x) times a number, the loss is minus its logarithm at every draw, of one and of five."""
    torch.manual_seed(2)
    model = VAE(EVENT_SHAPE, 2, network=SMALL)
    guide = Mixture(model, num_components=20, shared=True, network=SMALL)

    class Prior(torch.nn.Module):
        def forward(self):
            return guide.posterior(torch.zeros(1, *EVENT_SHAPE))

    model.prior = Prior()
    model.decoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Unflatten(-1, EVENT_SHAPE))
    torch.nn.init.zeros_(model.decoder[0].weight)
    torch.nn.init.zeros_(model.decoder[0].bias)
    x = torch.zeros(1, *EVENT_SHAPE)
    for objective in ("elbo", "iwae:num_samples=5", "stl:num_samples=5"):
        loss = OBJECTIVES.build(objective, probed=Pair(model, guide).probe(x))(x)
        assert loss.item() == pytest.approx(16 * 0.6931472, rel=1e-5)


def test_components_come_from_one_network():
    """A further component costs a row of V; at the start they differ, so that they can part."""
    model = VAE(EVENT_SHAPE, 3, network=SMALL)
    guides = [GUIDES.build(f"mixture:num_components={k},shared=true", model=model, network=SMALL) for k in (1, 11)]
    sizes = [sum(parameter.numel() for parameter in guide.parameters()) for guide in guides]
    assert sizes[1] - sizes[0] == 10 * 16
    q = Mixture(model, 50, shared=True, network=SMALL).posterior(torch.rand(4, *EVENT_SHAPE))
    assert q.locs.shape == (4, 50, 3)
    assert q.locs.std(-2).min() > 0.01

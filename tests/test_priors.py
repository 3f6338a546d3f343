from __future__ import annotations

import pytest
import torch

from pyro_vae.priors import PRIORS


@pytest.mark.parametrize("name", PRIORS)
def test_priors_declare_their_event_dimension(name):
    p = PRIORS.build(name, latent_dim=5)()
    assert (p.batch_shape, p.event_shape) == ((), (5,))
    assert p.sample((3,)).shape == (3, 5)
    assert p.log_prob(torch.zeros(4, 6, 5)).shape == (4, 6)


def learned(name: str, size: int):
    """A prior with weights that have moved."""
    prior = PRIORS.build(name, latent_dim=size)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior()


@pytest.mark.parametrize("name", PRIORS)
def test_samples_follow_the_density(name):
    """Weights of a narrow normal against the prior average to one over the prior's own draws: 40,000 bounded weights,
    so 6 standard errors hold with a false-alarm rate below 1e-8."""
    p = learned(name, 2)
    with torch.no_grad():
        z = p.sample((40_000,))
        narrow = torch.distributions.Normal(z.mean(0), 0.3 * z.std(0))
        weights = (narrow.log_prob(z).sum(-1) - p.log_prob(z)).exp()
    assert (weights.mean() - 1).abs() < 6 * weights.std() / 200


def test_mixture_prior_by_hand():
    prior = PRIORS.build("mixture", latent_dim=3)
    with torch.no_grad():
        prior.logits.copy_(torch.randn(10))
    z = torch.randn(4, 3)
    densities = torch.distributions.Normal(prior.locs, 1.0).log_prob(z.unsqueeze(1)).sum(-1).exp()
    torch.testing.assert_close(prior().log_prob(z), (prior.logits.softmax(0) * densities).sum(-1).log())


def test_flow_prior_matches_a_brute_force_jacobian():
    p = learned("flow", 3)
    noise = torch.randn(3)

    def push(value):
        for transform in p.transforms:
            value = transform(value)
        return value

    jacobian = torch.autograd.functional.jacobian(push, noise)
    expected = p.base_dist.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(p.log_prob(push(noise)), expected, rtol=1e-4, atol=1e-4)
    assert (jacobian - torch.diag(jacobian.diagonal())).abs().max() > 0.01


def test_standard_normal_density():
    z = torch.randn(3, 4)
    by_hand = -0.5 * (z.square() + torch.log(torch.tensor(2 * torch.pi))).sum(-1)
    torch.testing.assert_close(PRIORS.build("normal", latent_dim=4)().log_prob(z), by_hand)

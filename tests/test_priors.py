from __future__ import annotations

import copy

import pytest
import torch
from torch.distributions import MixtureSameFamily

from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import HVAE, SSVAE, VAE
from pyro_vae.pairs import Pair
from pyro_vae.priors import PRIORS, VampPrior
from tests.conftest import EVENT_SHAPE, SMALL


def build(name: str, size: int):
    """A prior by name; one that follows a guide gets one."""
    prior = PRIORS.build(name, latent_dim=size)
    if isinstance(prior, VampPrior):
        model = VAE(EVENT_SHAPE, size, prior=prior, network=SMALL)
        prior.follow(GUIDES.build("full_rank", model=model, network=SMALL))
    return prior


@pytest.mark.parametrize("name", PRIORS)
def test_priors_declare_their_event_dimension(name):
    p = build(name, 5)()
    assert (p.batch_shape, p.event_shape) == ((), (5,))
    assert p.sample((3,)).shape == (3, 5)
    assert p.log_prob(torch.zeros(4, 6, 5)).shape == (4, 6)


def learned(name: str, size: int):
    """A prior with weights that have moved."""
    prior = build(name, size)
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


def test_vampprior_mixes_the_posteriors_of_its_pseudo_inputs():
    """Also with labels, where the pseudo-inputs are pairs, and in the layer below, where they are latents."""
    z = torch.randn(6, 3)
    for model in (
        VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL),
        SSVAE(EVENT_SHAPE, 5, 3, prior=VampPrior(3, 4), network=SMALL),
        HVAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL),
    ):
        guide = GUIDES.build("mean_field", model=model, network=SMALL)
        model.prior.follow(guide)
        assert isinstance(model.prior(), MixtureSameFamily)
        q = guide.conditionals[model.latents[-1].name](*model.prior.pseudo_inputs)
        densities = torch.stack([q.log_prob(row) for row in z]).exp()
        torch.testing.assert_close(model.prior().log_prob(z), densities.mean(-1).log(), rtol=1e-4, atol=1e-4)


def test_vampprior_leaves_the_guide_its_parameters(x):
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    model.prior.follow(guide)
    pair = Pair(model, guide)
    pair.probe(x)
    mine = {id(p) for p in model.parameters()}
    assert not any(id(p) in mine for p in guide.parameters())
    assert len(pair.parameters()) == len(list(model.parameters())) + len(list(guide.parameters()))
    assert sum("pseudo_inputs" in name for name in pair.state_dict()) == 1


def test_a_pair_with_a_vampprior_is_copied_whole(x):
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    model.prior.follow(guide)
    model_copy, guide_copy = copy.deepcopy((model, guide))
    with torch.no_grad():
        guide_copy.conditionals["z"].family.loc.bias.add_(5.0)
    assert (model_copy.prior().mean - model.prior().mean - 5).abs().max() < 1e-4


def test_vampprior_needs_a_guide_that_it_can_mix():
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    with pytest.raises(InputError, match=r"a guide whose posteriors to mix; got none; call prior.follow\(guide\)"):
        model()
    for name in ("planar", "iaf", "spline"):
        guide = GUIDES.build(name, model=model, network=SMALL)
        with pytest.raises(
            InputError, match="quick to evaluate at any point, for the prior 'vampprior'; got one without"
        ):
            model.prior.follow(guide)

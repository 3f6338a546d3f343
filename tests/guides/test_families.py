"""Every family's density, against brute force."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_vae.conditionals import DiagonalNormal
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES, Guide
from pyro_vae.models import VAE
from pyro_vae.networks import START
from tests.conftest import EVENT_SHAPE, SMALL, LinearGaussian, make_pair

FLOWS = ["iaf", "planar", "householder", "spline"]


def conditional(guide: str, size: int = 3, factor: float = 2.0):
    """q(z | features) of a guide by name, its weights multiplied to matter, and five rows of features."""
    torch.manual_seed(1)
    model = VAE(EVENT_SHAPE, size, network=SMALL)
    family = GUIDES.build(guide, model=model, network=SMALL).conditionals["z"].family
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.mul_(factor)
        for transform in getattr(family, "transforms", ()):
            for parameter in transform.parameters():
                parameter.div_(START)
    return family, torch.randn(5, 16)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_densities_match_a_brute_force_jacobian(name):
    family, features = conditional(name)
    for row in features:
        q = family(row)
        z0 = q.base_dist.sample()
        jacobian = torch.autograd.functional.jacobian(lambda value, q=q: push(q, value), z0)
        z = push(q, z0)
        expected = q.base_dist.log_prob(z0) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-4, atol=1e-4)


def push(q, value):
    for transform in q.transforms:
        value = transform(value)
    return value


@pytest.mark.parametrize("name", FLOWS)
def test_flow_parameters_depend_on_x(name):
    """Moving the features while the base stays where it is moves the draws."""
    family, features = conditional(name)
    with torch.no_grad():
        family.base.loc.weight.zero_()
        family.base.log_scale.weight.zero_()
    z0 = torch.randn(3)
    assert not torch.allclose(push(family(features[0]), z0), push(family(features[1]), z0))


def test_iaf_is_autoregressive():
    family, features = conditional("iaf", size=4)
    jacobian = torch.autograd.functional.jacobian(family(features[0]).transforms[0], torch.randn(4))
    order = family.transforms[0].nn.permutation
    ordered = jacobian[order][:, order]
    torch.testing.assert_close(ordered.triu(1), torch.zeros(4, 4))
    assert ordered.tril(-1).abs().sum() > 0


def test_householder_keeps_volume_and_correlates():
    family, features = conditional("householder")
    q = family(features[0])
    jacobian = torch.autograd.functional.jacobian(lambda value: push(q, value), torch.randn(3))
    torch.testing.assert_close(jacobian @ jacobian.T, torch.eye(3), atol=1e-5, rtol=0)
    assert (jacobian - torch.diag(jacobian.diagonal())).abs().max() > 0.1


def test_full_rank_is_the_normal_with_that_covariance():
    family, features = conditional("full_rank", factor=1.0)
    q = family(features)
    entries = family.cholesky(features).unflatten(-1, (3, 3))
    lower = entries.tril(-1) + torch.diag_embed(entries.diagonal(dim1=-2, dim2=-1).exp())
    by_hand = MultivariateNormal(family.loc(features), lower @ lower.mT)
    z = torch.randn(5, 3)
    torch.testing.assert_close(q.log_prob(z), by_hand.log_prob(z), rtol=1e-4, atol=1e-4)


def test_low_rank_is_the_normal_with_that_covariance():
    family, features = conditional("low_rank", size=4)
    q = family(features)
    factor = family.factor(features).unflatten(-1, (4, 2))
    covariance = factor @ factor.mT + torch.diag_embed(family.log_diagonal(features).exp())
    by_hand = MultivariateNormal(family.loc(features), covariance)
    z = torch.randn(5, 4)
    torch.testing.assert_close(q.log_prob(z), by_hand.log_prob(z), rtol=1e-4, atol=1e-4)


def test_low_rank_has_no_more_factors_than_dimensions():
    family, features = conditional("low_rank", size=1)
    assert family(features).cov_factor.shape == (5, 1, 1)


def test_mixture_is_the_weighted_sum_of_its_normals():
    family, features = conditional("mixture")
    z = torch.randn(5, 3)
    weights = family.logits(features).softmax(-1)
    locs = family.locs(features).unflatten(-1, (3, 3))
    scales = family.log_scales(features).exp().unflatten(-1, (3, 3))
    densities = Normal(locs, scales).log_prob(z.unsqueeze(1)).sum(-1).exp()
    torch.testing.assert_close(family(features).log_prob(z), (weights * densities).sum(-1).log(), rtol=1e-4, atol=1e-4)


def test_mixture_needs_two_dimensions():
    with pytest.raises(InputError, match="at least two latent dimensions for the guide 'mixture'; got 1"):
        conditional("mixture", size=1)


@pytest.mark.parametrize("name", GUIDES)
def test_densities_integrate_to_one(name):
    """A mean of p(z) / q(z) over draws from q, with a p much narrower than q: 40,000 draws of bounded weights,
    so 6 standard errors hold with a false-alarm rate below 1e-7 over the families."""
    family, features = conditional(name, size=2, factor=1.0)
    q = family(features[0]).expand((40_000,)) if name == "mixture" else family(features[0].expand(40_000, -1))
    z = q.sample()
    p = dist.Normal(z.mean(0), 0.3 * z.std(0)).to_event(1)
    weights = (p.log_prob(z) - q.log_prob(z)).exp()
    assert (weights.mean() - 1).abs() < 6 * weights.std() / 200


def test_a_family_needs_no_name(x):
    pair = make_pair()
    guide = Guide(pair.model, DiagonalNormal, network=SMALL)
    assert guide.posterior(x).batch_shape == (7,)


def test_mean_field_starts_at_the_scale_asked_for(x):
    model = make_pair().model
    torch.manual_seed(1)
    plain = GUIDES.build("mean_field", model=model, network=SMALL).posterior(x)
    torch.manual_seed(1)
    narrow = GUIDES.build("mean_field:init_scale=0.1", model=model, network=SMALL).posterior(x)
    torch.testing.assert_close(narrow.stddev, 0.1 * plain.stddev)
    assert torch.equal(narrow.mean, plain.mean)


def test_full_rank_holds_the_exact_posterior_and_mean_field_does_not(linear_gaussian: LinearGaussian):
    """With the weights of the closed form put in, the full-rank bound is the evidence itself."""
    x = linear_gaussian.sample(30)
    exact = linear_gaussian.posterior(x)
    guide = GUIDES.build("full_rank", model=linear_gaussian.model, network=SMALL)
    family = guide.conditionals["z"].family
    with torch.no_grad():
        lower = exact.scale_tril[0]
        family.cholesky.weight.zero_()
        family.cholesky.bias.copy_((lower.tril(-1) + torch.diag(lower.diagonal().log())).flatten())
    q = family(torch.zeros(1, 16))
    torch.testing.assert_close(q.covariance_matrix[0], exact.covariance_matrix[0], rtol=1e-4, atol=1e-5)
    assert exact.covariance_matrix[0, 0, 1].abs() > 0.01

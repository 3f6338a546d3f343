"""Importance weights: against closed forms, known Pareto shapes, and posteriors that are wrong in a known way."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.diagnostics.importance import Importance, importance_sample
from pyro_vae.errors import InputError
from pyro_vae.guides import MeanField
from pyro_vae.models import SSVAE
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior import Target
from tests.diagnostics.planted import linear_model, linear_pair


def generated(num_data, seed=0):
    """Data of the linear-Gaussian model."""
    model = linear_model()
    torch.manual_seed(seed)
    z = torch.randn(num_data, 10)
    return (model.decoder(z) + 0.4 * torch.randn(num_data, 12)).detach()


def normal_weights(scale, num_samples, num_data=1, seed=0):
    """Weights of N(0, 1) with N(0, scale^2) as the proposal."""
    generator = torch.Generator().manual_seed(seed)
    u = scale * torch.randn(num_samples, num_data, 1, generator=generator)
    log_weights = (dist.Normal(0.0, 1.0).log_prob(u) - dist.Normal(0.0, scale).log_prob(u)).squeeze(-1)
    return Importance(log_weights, log_weights, u, ("z",))


def test_the_exact_posterior_has_equal_weights():
    probed = linear_pair()
    x = generated(5)
    found = importance_sample(Target(probed, x), num_samples=200)
    evidence = probed.pair.model.evidence(x).double()
    assert torch.allclose(found.log_likelihood, evidence, atol=1e-4)
    assert torch.allclose(found.elbo, evidence, atol=1e-4)
    assert torch.allclose(found.ess, torch.full((5,), 200.0, dtype=torch.float64), rtol=1e-3)
    assert (found.k_hat < 0.1).all()
    assert (found.standard_error < 1e-3).all()


def test_the_evidence_is_within_three_standard_errors():
    """Forty data, half the scale's correlations gone: the share beyond 3 standard errors is 0.27 % of data, and two or
    more of 40 by chance are 0.5 %; the standard error itself is rough, hence two are allowed.
    """
    probed = linear_pair(independent=True, latent_dim=2)
    x = generated(40)
    with torch.no_grad():
        found = importance_sample(Target(probed, x), num_samples=4000, seed=1)
        error = (found.log_likelihood - probed.pair.model.evidence(x)).abs()
    assert (found.k_hat < 0.7).all()
    assert (error > 3 * found.standard_error).sum() <= 2


@pytest.mark.parametrize("scale", [0.6, 0.75, 0.9])
def test_k_hat_of_a_narrow_normal(scale):
    """Weights exp(z^2 (1 / s^2 - 1) / 2) of z ~ N(0, s^2) have a Pareto tail of shape 1 - s^2; means of 20 data.

    The fit is to the largest 3 sqrt(S) weights, whose tail is not yet that of the limit: 0.1 is allowed.
    """
    found = normal_weights(scale, 20_000, 20)
    assert found.k_hat.mean().item() == pytest.approx(1 - scale**2, abs=0.1)


def test_k_hat_is_one_number_a_datum():
    good, bad = normal_weights(0.95, 2000), normal_weights(0.2, 2000, seed=1)
    log_weights = torch.cat([good.log_weights, bad.log_weights], 1)
    both = Importance(log_weights, log_weights, torch.cat([good.u, bad.u], 1), ("z",))
    assert both.k_hat[0] == good.k_hat[0] < 0.3
    assert both.k_hat[1] == bad.k_hat[0] > 0.7


def test_the_curve_rises_from_the_elbo_to_the_evidence():
    found = normal_weights(1.5, 4000, 50)
    curve = found.curve([1, 10, 100, 4000])
    means = [bound.mean().item() for bound in curve.values()]
    assert means == sorted(means)
    assert torch.allclose(curve[1], found.elbo)
    assert torch.allclose(curve[4000], found.log_likelihood)
    kl = math.log(1 / 1.5) + 1.5**2 / 2 - 0.5
    assert means[0] == pytest.approx(-kl, abs=5 * 0.03)  # 5 standard errors of 200,000 draws are 0.01; and skewness


def test_two_equal_groups_have_the_mean_of_their_bounds():
    log_weights = torch.tensor([[0.0], [1.0], [2.0], [4.0], [9.0]])
    found = Importance(log_weights, log_weights, torch.zeros(5, 1, 1), ("z",))
    first = math.log((1 + math.e) / 2)
    second = math.log((math.exp(2) + math.exp(4)) / 2)
    assert found.curve([2])[2].item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.25, 0.0), (1.0, 0.5), (0.9, 0.25)])
def test_moments_are_those_of_the_posterior(scale, shift):
    """Two latents, 30 data, 4,000 draws: medians over data within 0.06, about five standard errors."""
    probed = linear_pair(scale=scale, shift=shift, latent_dim=2)
    found = importance_sample(Target(probed, generated(30)), num_samples=4000)
    assert found.sd_ratio.median().item() == pytest.approx(scale, abs=0.06)
    assert found.mean_error.median().item() == pytest.approx(shift, abs=0.06)


def test_bad_weights_are_counted_and_left_out():
    sound = normal_weights(1.2, 1000, 3)
    log_weights = sound.log_weights.clone()
    log_weights[:10, 1], log_weights[:5, 2] = math.nan, math.inf
    found = Importance(log_weights, log_weights, sound.u, sound.names)
    assert found.num_bad.tolist() == [0, 10, 5]
    assert found.k_hat[0] == sound.k_hat[0]
    assert found.k_hat[1:].isinf().all()
    expected = log_weights[10:, 1].double().logsumexp(0) - math.log(990)
    assert found.log_likelihood[1].item() == pytest.approx(expected.item())
    assert found.ess.isfinite().all()


def test_weights_of_zero_are_sound():
    log_weights = torch.zeros(100, 1)
    log_weights[:50] = -math.inf
    found = Importance(log_weights, log_weights, torch.zeros(100, 1, 1), ("z",))
    assert found.num_bad.item() == 0
    assert found.log_likelihood.item() == pytest.approx(math.log(0.5))
    assert found.ess.item() == pytest.approx(50)
    assert found.elbo.item() == -math.inf


def test_labels_are_summed_out_of_the_likelihood():
    """The evidence of a tiny labelled model, by 20,000 draws of its prior: within 5 joint standard errors."""
    torch.manual_seed(1)
    model = SSVAE((5,), num_classes=3, latent_dim=2)
    pair = Pair(model, MeanField(model))
    x = torch.rand(4, 5).round()
    found = importance_sample(Target(pair.probe(x), x), num_samples=5000)
    with torch.no_grad():
        z, one_hot = torch.randn(20_000, 2), torch.eye(3)
        p = [model.likelihood(model.decoder(z, label.expand(len(z), 3))) for label in one_hot]
        likelihoods = torch.stack([sum(each.log_prob(row).exp() / 3 for each in p) for row in x])
    brute, error = likelihoods.mean(1).log(), likelihoods.std(1) / likelihoods.mean(1) / math.sqrt(20_000)
    assert ((found.log_likelihood - brute).abs() < 5 * (error + found.standard_error)).all()
    assert (found.elbo <= found.log_likelihood).all()


def test_chunks_are_all_of_the_data(monkeypatch):
    probed = linear_pair(scale=1.5)
    x = generated(7)
    whole = importance_sample(Target(probed, x), num_samples=3000)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 512 * 1000)
    parts = importance_sample(Target(probed, x), num_samples=3000)
    assert parts.log_weights.shape == whole.log_weights.shape == (3000, 7)
    assert torch.allclose(parts.log_likelihood, whole.log_likelihood, atol=0.5)
    assert not torch.equal(parts.log_weights, whole.log_weights)


def test_global_latents_are_one_datum():
    x = torch.tensor([1.0, 2.0, 3.0])

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(1.5, 0.5))

    pair = Pair(model, guide)
    found = importance_sample(Target(pair.probe(x), x), num_samples=500)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + torch.ones(3, 3)).log_prob(x)
    assert found.log_likelihood.tolist() == pytest.approx([exact.item()], abs=1e-5)  # the posterior is N(1.5, 1 / 4)


def test_no_samples_are_refused():
    probed = linear_pair()
    with pytest.raises(InputError, match=r"at least one sample.*--samples"):
        importance_sample(Target(probed, generated(2)), num_samples=0)


def test_the_random_state_is_left_alone():
    probed = linear_pair()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    importance_sample(Target(probed, generated(2, seed=3)), num_samples=10)
    torch.manual_seed(3)
    importance_sample(Target(probed, torch.zeros(2, 12)), num_samples=10)
    assert torch.equal(before, torch.get_rng_state())

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.guides import MeanField
from pyro_vae.models import SSVAE, LinearGaussian
from pyro_vae.networks import MLP
from pyro_vae.pairs import Pair
from pyro_vae.posterior.annealing import AnnealedBound, Annealing, annealed_bound, annealed_bracket
from pyro_vae.posterior.simulation import simulate


def simulated(model, guide, template):
    """Targets of data drawn from a model, and their latents."""
    torch.manual_seed(0)
    pair = Pair(model, guide)
    probed = pair.probe(template)
    pair.train(False)
    return simulate(probed, template)


def linear_gaussian(num_data, data_dim, latent_dim):
    """With a decoder whose columns are far from orthogonal, so that the posterior is correlated."""
    torch.manual_seed(1)
    model = LinearGaussian((data_dim,), latent_dim)
    with torch.no_grad():
        model.decoder.weight.copy_(torch.randn(data_dim, latent_dim) + torch.randn(data_dim, 1))
    return simulated(model, MeanField(model), torch.zeros(num_data, data_dim))


@pytest.mark.exhaustive
def test_bounds_meet_at_the_evidence_of_ten_correlated_latents():
    """Sixteen data: each bound on the right side within 4 standard errors, about once in 30,000 runs off."""
    target, latents = linear_gaussian(16, 20, 10)
    bracket = annealed_bracket(target, latents, Annealing(num_temperatures=250))
    truth = target.pair.model.evidence(target.x).detach().double()
    below, above = bracket.lower.log_likelihood - truth, bracket.upper.log_likelihood - truth
    assert below.mean() < 4 * below.std() / math.sqrt(16)
    assert above.mean() > -4 * above.std() / math.sqrt(16)
    assert abs(bracket.gap.mean()) < 0.5
    assert below.mean().abs() < 0.5
    assert above.mean().abs() < 0.5
    assert bracket.as_dict()["gap"] == pytest.approx(bracket.gap.mean().item())
    assert bracket.lower.acceptance.min() > 0.4
    assert bracket.upper.acceptance.max() < 0.9


def test_weights_are_unbiased_however_short_the_run():
    """Means of w / p(x) and p(x) w' are 1 within 5 standard errors (2,000 data, 6 temperatures)."""
    target, latents = linear_gaussian(2000, 3, 1)
    bracket = annealed_bracket(target, latents, Annealing(4, 6, 2))
    truth = target.pair.model.evidence(target.x).detach().double()
    for ratio in ((bracket.lower.log_likelihood - truth).exp(), (truth - bracket.upper.log_likelihood).exp()):
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(2000)
        assert ratio.std() > 0.05  # a run so short is no exact answer
    assert bracket.lower.log_likelihood.mean() < truth.mean() < bracket.upper.log_likelihood.mean()


@pytest.mark.exhaustive
def test_standard_errors_are_the_spread_of_the_bound():
    """Two runs of 400 data: their difference in standard errors has a variance of 1 within 0.35."""
    target, _ = linear_gaussian(400, 3, 2)
    one, other = (annealed_bound(target, Annealing(50, 20, 2), seed) for seed in (0, 1))
    error = (one.standard_error.square() + other.standard_error.square()).sqrt()
    scores = (one.log_likelihood - other.log_likelihood) / error
    assert scores.var().item() == pytest.approx(1, abs=0.35)
    assert (one.effective_sample_size <= 50).all()
    assert (one.effective_sample_size >= 1).all()


def test_labels_are_summed_out():
    """A labelled model with one latent, its evidence by a sum over a fine grid; means within 0.1 nats."""
    torch.manual_seed(1)
    network = MLP(hidden=(8,))
    model = SSVAE((6,), num_classes=3, latent_dim=1, network=network)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(4)
    target, latents = simulated(model, MeanField(model, network=network), torch.zeros(12, 6))
    grid = torch.linspace(-6, 6, 1201)
    density = target.log_density(grid[:, None, None].expand(-1, 12, 1))
    truth = (density.logsumexp(0) + math.log(12 / 1200)).detach().double()
    bracket = annealed_bracket(target, latents, Annealing(48, 80, 3))
    assert (bracket.lower.log_likelihood - truth).abs().mean() < 0.1
    assert (bracket.upper.log_likelihood - truth).abs().mean() < 0.1
    assert torch.allclose(annealed_bound(target, Annealing(48, 80, 3)).log_likelihood, bracket.lower.log_likelihood)


def test_positive_latents_and_latents_of_all_data():
    """Two evidences in closed form: a Lomax density a datum, and one normal for all data; within 0.1 nats."""

    def rates(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            return pyro.sample("x", dist.Exponential(rate), obs=x)

    def rates_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal(torch.zeros(len(x)), 1.0))

    def level(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def level_guide(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    annealing = Annealing(64, 60, 4)
    target, latents = simulated(rates, rates_guide, torch.zeros(5))
    bracket = annealed_bracket(target, latents, annealing)
    exact = torch.log(2 / (1 + target.x) ** 3).double()
    assert (bracket.lower.log_likelihood - exact).abs().max() < 0.1
    assert (bracket.upper.log_likelihood - exact).abs().max() < 0.1

    target, latents = simulated(level, level_guide, torch.zeros(5))
    bracket = annealed_bracket(target, latents, annealing)
    covariance = torch.eye(5) + 4 * torch.ones(5, 5)
    exact = dist.MultivariateNormal(torch.zeros(5), covariance).log_prob(target.x).item()
    assert bracket.lower.log_likelihood.tolist() == pytest.approx([exact], abs=0.1)
    assert bracket.upper.log_likelihood.tolist() == pytest.approx([exact], abs=0.1)


def test_temperatures_are_equally_spaced_under_a_sigmoid():
    temperatures = torch.tensor(Annealing(num_temperatures=8).temperatures, dtype=torch.float64)
    assert temperatures[[0, -1]].tolist() == [0, 1]
    cut = torch.special.expit(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    assert torch.allclose(torch.logit(cut[0] + (cut[1] - cut[0]) * temperatures).diff(), torch.tensor(1.0).double())


def test_bounds_by_hand():
    log_weight = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).double().log()
    lower = AnnealedBound.from_weights(log_weight, torch.ones(2), upper=False)
    assert torch.allclose(lower.log_likelihood.exp(), torch.tensor(2.0).double())
    assert torch.allclose(lower.effective_sample_size, torch.tensor(16 / 10).double())
    assert torch.allclose(lower.standard_error, torch.tensor(math.sqrt(2 / 2) / 2).double())  # sd / sqrt(S) / mean
    assert torch.equal(
        AnnealedBound.from_weights(log_weight, torch.ones(2), upper=True).log_likelihood, -lower.log_likelihood
    )


def test_the_same_seed_gives_the_same_bounds_and_no_other_randomness_moves():
    target, _ = linear_gaussian(3, 4, 2)
    target.pair.train(True)
    before = torch.get_rng_state()
    annealing = Annealing(4, 5, 2)
    one, same, other = (annealed_bound(target, annealing, seed).log_likelihood for seed in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert target.pair.guide.training


def test_bad_settings_are_refused():
    target, latents = linear_gaussian(3, 4, 2)
    with pytest.raises(InputError, match=r"0 temperatures.*Annealing\(16, 500, 10\)"):
        Annealing(num_temperatures=0)
    with pytest.raises(InputError, match=r"shape \(3, 2\); got shape \(3, 1\); draw latents and data together"):
        annealed_bracket(target, latents[:, :1])

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair, draw_terms
from pyro_vae.pairs.labels import label_distribution
from tests.conftest import LinearGaussian, combinations, make_pair


@pytest.mark.parametrize(("model", "guide"), combinations(MODELS, GUIDES, colours=[1]))
def test_the_terms_are_those_of_the_objective(model, guide, x):
    """Both estimate the same bound, from noise of their own, of which the terms' is the smaller: 7 standard errors by
    40 losses, of 5 copies of the data each, and a t of 39 degrees of freedom beyond 7 has a chance below 1e-7."""
    pair = make_pair(model, guide)
    terms = draw_terms(pair.probe(x), x, 4000)
    objective = OBJECTIVES["elbo"](pair.probe(x))
    losses = torch.stack([objective(x.repeat(5, 1, 1, 1)).detach() for _ in range(40)])
    error = losses.std() / len(losses) ** 0.5
    assert terms.elbo.shape == terms.kl.shape == terms.log_likelihood.shape == (7,)
    assert -terms.elbo.mean().item() == pytest.approx(losses.mean().item(), abs=7 * error.item())
    torch.testing.assert_close(terms.elbo, terms.log_likelihood - terms.kl)


def test_monte_carlo_kl_is_the_closed_form(x):
    pair = make_pair("vae")
    terms = draw_terms(pair.probe(x), x, 20_000)
    q = pair.guide.posterior(x)
    exact = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
    torch.testing.assert_close(terms.kl, exact, atol=0.03, rtol=0.05)


def test_kl_of_an_enumerated_pair_includes_the_label(x):
    """KL(q(y, z | x) || p(y, z)) = KL(q(y | x) || p(y)) + E_q(y)[KL(q(z | x, y) || p(z))]."""
    pair = make_pair("ss_vae")
    terms = draw_terms(pair.probe(x), x, 20_000)
    q_y = label_distribution(pair, x)
    exact = (q_y.probs * (q_y.probs.log() + math.log(3))).sum(-1)
    for label in range(3):
        q_z = pair.guide.posterior(x, torch.full((7,), label))
        kl = torch.distributions.kl_divergence(q_z, dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        exact = exact + q_y.probs[:, label] * kl
    torch.testing.assert_close(terms.kl, exact, atol=0.03, rtol=0.05)


def test_importance_weights_reach_the_evidence(linear_gaussian: LinearGaussian):
    """From a posterior of twice the exact covariance, whose weights are bounded, the mean weight of 20,000 samples lies
    within 6 of its standard errors of p(x): a false alarm has a chance below 1e-7 over the 10 data."""
    x = linear_gaussian.sample(10)

    def wide(x):
        exact = linear_gaussian.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(exact.mean, 2 * exact.covariance_matrix))

    terms = draw_terms(Pair(linear_gaussian.model, wide).probe(x), x, 20_000)
    weights = (terms.log_weights - linear_gaussian.evidence(x)).exp()
    error = weights.std(0) / 20_000**0.5
    assert ((weights.mean(0) - 1).abs() < 6 * error).all()


def test_importance_weights_sum_the_label_out(x):
    """log p(x) = log sum_y p(y) p(x | y), with p(x | y) by brute-force quadrature over a two-dimensional z."""
    pair = make_pair("ss_vae")
    terms = draw_terms(pair.probe(x), x, 20_000)
    axis = torch.linspace(-6, 6, 121)
    grid = torch.cartesian_prod(axis, axis)
    log_prior = dist.Normal(0.0, 1.0).log_prob(grid).sum(-1) + 2 * math.log(12 / 120)
    exact = []
    with torch.no_grad():
        for label in range(3):
            logits = pair.model.decoder(grid, torch.eye(3)[label].expand(len(grid), -1))
            log_x = dist.Bernoulli(logits=logits.unsqueeze(1)).log_prob(x).flatten(2).sum(-1)
            exact.append((log_x + log_prior.unsqueeze(1)).logsumexp(0) - math.log(3))
    estimate = terms.log_weights.logsumexp(0) - math.log(20_000)
    torch.testing.assert_close(estimate, torch.stack(exact).logsumexp(0), atol=0.02, rtol=0)


def test_latent_mean_averages_over_the_labels(x):
    pair = make_pair("ss_vae")
    terms = draw_terms(pair.probe(x), x)
    weights = label_distribution(pair, x).probs
    means = torch.stack([pair.guide.posterior(x, torch.full((7,), label)).mean for label in range(3)], 1)
    torch.testing.assert_close(terms.latent_mean("z"), (weights.unsqueeze(-1) * means).sum(1))


def test_plates_inside_the_data_plate_are_summed(x):
    """A program that puts its pixels in a plate has the same terms as one that declares them an event."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]))
            with pyro.plate("pixels", 16, dim=-1):
                pyro.sample("x", dist.Bernoulli(logits=z.expand(*z.shape[:-1], 16)), obs=x.flatten(1))

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.flatten(1).mean(1, keepdim=True), 0.5))

    pair = Pair(model, guide)
    probed = pair.probe(x)
    assert (probed.nesting, probed.data_dim) == (2, -2)
    terms = draw_terms(probed, x, 20_000)
    assert terms.elbo.shape == (7,)
    loc = x.flatten(1).mean(1)
    exact_kl = torch.distributions.kl_divergence(dist.Normal(loc, 0.5), dist.Normal(0.0, 1.0))
    torch.testing.assert_close(terms.kl, exact_kl, atol=0.03, rtol=0)
    torch.testing.assert_close(terms.latent_mean("z").squeeze(-1), loc)


def test_a_site_outside_the_data_plate_is_refused(x):
    def model(x):
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(weight, 1.0), obs=x.flatten(1).mean(1))

    def guide(x):
        pyro.sample("weight", dist.Normal(0.0, 1.0))

    pair = Pair(model, guide)
    probed = pair.probe(x)
    assert probed.data_dim is None
    with pytest.raises(InputError, match="expected every sample site inside"):
        draw_terms(probed, x)


def test_label_distribution_leaves_the_random_state_alone(x):
    pair = make_pair("ss_vae")
    before = torch.get_rng_state()
    probabilities = label_distribution(pair, x).probs
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(probabilities, pair.guide.conditionals["y"](x).probs)


def test_label_distribution_needs_a_label_site(x):
    with pytest.raises(InputError, match="a guide that samples the label site"):
        label_distribution(make_pair("vae"), x)

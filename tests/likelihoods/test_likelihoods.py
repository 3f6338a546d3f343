from __future__ import annotations

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from scipy import stats

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Binomial,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_dimension_of_an_image_is_an_event_dimension(name):
    p = LIKELIHOODS[name]((2, 3, 4))(torch.randn(5, 6, 2, 3, 4))
    assert p.batch_shape == (5, 6)
    assert p.event_shape == (2, 3, 4)


def test_bernoulli_sums_to_one():
    p = Bernoulli((3,))(torch.randn(3))
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    assert p.log_prob(corners).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_binomial_is_that_of_its_counts():
    """Against Pyro's own distribution of the counts, and its probabilities sum to one."""
    logits, counts = torch.randn(3), torch.arange(17.0).unsqueeze(1).expand(17, 3)
    pixels = Binomial((3,))(logits).base_dist
    torch.testing.assert_close(pixels.log_prob(counts / 16), dist.Binomial(16, logits=logits).log_prob(counts))
    torch.testing.assert_close(pixels.log_prob(counts / 16).exp().sum(0), torch.ones(3))


def test_binomial_of_one_trial_is_the_bernoulli():
    logits, x = torch.randn(5, 4), torch.rand(5, 4).round()
    one, bernoulli = Binomial((4,), trials=1)(logits), Bernoulli((4,))(logits)
    torch.testing.assert_close(one.log_prob(x), bernoulli.log_prob(x))
    assert one.base_dist.support is constraints.boolean


def test_binomial_draws_are_shares_with_its_mean_and_variance():
    """Means of 40,000 draws; five standard errors, passed by chance 5 in 10 million times."""
    pixels = Binomial((3,), trials=5)(torch.tensor([-2.0, 0.0, 1.5])).base_dist
    draws = pixels.sample((40_000,))
    assert pixels.support.check(draws).all()
    error = (pixels.variance / len(draws)).sqrt()
    assert ((draws.mean(0) - pixels.mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.var(0), pixels.variance, rtol=0.05, atol=0)


def test_binomial_knows_its_values():
    support = Binomial((1,), trials=5)(torch.zeros(1)).base_dist.support
    values = torch.tensor([0.0, 0.2, 0.6000001, 1.0, 0.5, 1.2, -0.2, float("nan")])
    assert support.check(values).tolist() == [True] * 4 + [False] * 4
    with pytest.raises(ValueError, match="multiples of 1/5"):
        Binomial((1,), trials=5)(torch.zeros(1)).base_dist.log_prob(torch.tensor([0.5]))


def test_gaussian_is_the_normal_density():
    likelihood = Gaussian((4,), scale=0.3)
    x, loc = torch.randn(4), torch.randn(4)
    by_hand = (-0.5 * ((x - loc) / 0.3) ** 2 - torch.log(torch.tensor(0.3 * (2 * torch.pi) ** 0.5))).sum()
    torch.testing.assert_close(likelihood(loc).log_prob(x), by_hand)


def test_gaussian_learns_its_scale_only_when_asked():
    assert [name for name, _ in Gaussian((4,)).named_parameters()] == ["log_scale"]
    assert not list(Gaussian((4,), sigma="fixed").parameters())


def test_learned_scale_reaches_the_root_mean_square_error():
    likelihood = Gaussian((50,))
    x = 0.2 * torch.randn(400, 50)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(50)).log_prob(x).mean()).backward()
        optimizer.step()
    assert likelihood.log_scale.exp().item() == pytest.approx(x.square().mean().sqrt().item(), rel=1e-3)


def test_laplace_is_the_absolute_error():
    x, loc = torch.randn(4), torch.randn(4)
    by_hand = (-(x - loc).abs() / 0.3 - torch.log(torch.tensor(2 * 0.3))).sum()
    torch.testing.assert_close(Laplace((4,), scale=0.3)(loc).log_prob(x), by_hand)


@pytest.mark.parametrize("logit", [-8.0, -1.0, -1e-3, 0.0, 1e-3, 0.05, 2.0, 8.0])
def test_continuous_bernoulli_integrates_to_one(logit):
    """By Simpson's rule on 2,001 points, whose error is far below 1e-4 here; near logit 0 the constant is a limit."""
    x = torch.linspace(0, 1, 2001).unsqueeze(1)
    density = ContinuousBernoulli((1,))(torch.full((2001, 1), logit)).log_prob(x).exp().double()
    weights = torch.ones(2001, dtype=torch.float64)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    assert (density * weights).sum().item() / 6000 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "best"), [(Gaussian, lambda e: e.square().mean().sqrt()), (Laplace, lambda e: e.abs().mean())]
)
def test_the_optimal_scale_is_the_best_there_is(kind, best):
    x, loc = torch.randn(40, 3), torch.randn(40, 3)
    optimal = kind((3,), sigma="optimal")
    found = optimal(loc).log_prob(x)
    assert found.shape == (40,)
    scores = {s: kind((3,), sigma="fixed", scale=s)(loc).log_prob(x).sum() for s in torch.linspace(0.2, 3, 50).tolist()}
    assert found.sum() >= max(scores.values()) - 1e-3
    torch.testing.assert_close(found, kind((3,), sigma="fixed", scale=best(x - loc).item())(loc).log_prob(x))


def test_the_optimal_scale_is_kept_for_evaluation():
    likelihood = Gaussian((3,), sigma="optimal")
    x, loc = 0.2 * torch.randn(400, 3), torch.zeros(400, 3, requires_grad=True)
    for _ in range(400):
        likelihood(loc).log_prob(x).sum().backward()
    likelihood.eval()
    rms = x.square().mean().sqrt().item()
    assert likelihood(loc).log_prob(x).sum().item() == pytest.approx(
        Gaussian((3,), scale=rms)(loc).log_prob(x).sum().item(), rel=1e-3
    )
    assert list(likelihood.state_dict()) == ["log_scale"]
    assert not list(likelihood.parameters())


def test_gradients_at_the_optimal_scale_are_those_at_that_scale():
    """The score is stationary in the scale, so nothing flows through it."""
    x, loc = torch.randn(40, 3), torch.zeros(40, 3, requires_grad=True)
    Gaussian((3,), sigma="optimal")(loc).log_prob(x).sum().backward()
    other = torch.zeros(40, 3, requires_grad=True)
    Gaussian((3,), scale=x.square().mean().sqrt().item())(other).log_prob(x).sum().backward()
    torch.testing.assert_close(loc.grad, other.grad)


@pytest.mark.parametrize(
    "choice", ["gaussian", "laplace", "gaussian:sigma=fixed,scale=0.3", "laplace:scale=0.3", "gaussian:sigma=optimal"]
)
def test_densities_on_the_real_line_integrate_to_one(choice):
    """By the trapezoidal rule over 40 scales either way, whose error is far below 1e-4."""
    likelihood = LIKELIHOODS.build(choice, event_shape=(1,)).eval()
    x = torch.linspace(-40, 40, 80_001, dtype=torch.float64).unsqueeze(1)
    density = likelihood(torch.full_like(x, 0.7)).log_prob(x).exp()
    assert torch.trapezoid(density, x.squeeze(1)).item() == pytest.approx(1, abs=1e-4)


COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_have_probabilities_that_sum_to_one_and_a_mean(name):
    """Over counts up to 4,000, beyond which less than 1e-6 is left."""
    eta, counts = torch.tensor([-1.0, 0.0, 2.0]), torch.arange(4000.0).unsqueeze(1)
    pixels = LIKELIHOODS[name]((3,))(eta).base_dist
    probabilities = pixels.log_prob(counts).exp().detach()
    torch.testing.assert_close(probabilities.sum(0), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close((probabilities * counts).sum(0), pixels.mean.detach(), rtol=1e-3, atol=1e-4)


def test_counts_by_hand():
    """SciPy's parameters of the negative binomial: n = r, p = r / (r + mu)."""
    eta, x = torch.tensor([0.5, 2.0]), torch.tensor([3.0, 0.0])
    torch.testing.assert_close(
        Poisson((2,))(eta).log_prob(x).item(),
        sum(stats.poisson.logpmf(x.numpy(), eta.exp().numpy())),
        rtol=1e-5,
        atol=0,
    )
    likelihood = NegativeBinomial((2,))
    likelihood.log_dispersion.data = torch.tensor([0.3, -1.0])
    r, mu = likelihood.log_dispersion.detach().exp().numpy(), eta.exp().numpy()
    by_hand = stats.nbinom.logpmf(x.numpy(), r, r / (r + mu))
    torch.testing.assert_close(likelihood(eta).log_prob(x).item(), float(by_hand.sum()), rtol=1e-5, atol=0)
    inflated = ZeroInflatedNegativeBinomial((2,))
    inflated.log_dispersion.data = likelihood.log_dispersion.data
    share = inflated.gate_logits.detach().sigmoid().numpy()
    zero = share[1] + (1 - share[1]) * float(stats.nbinom.pmf(0, r[1], r[1] / (r[1] + mu[1])))
    expected = math.log(1 - share[0]) + float(by_hand[0]) + math.log(zero)
    torch.testing.assert_close(inflated(eta).log_prob(x).item(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_fitted_and_come_back_as_they_are(name):
    """With means over three orders of magnitude, of which encoders see the logarithm."""
    generator = torch.Generator().manual_seed(0)
    rates = torch.exp(torch.linspace(-1, 6, 8)) * torch.rand(120, 1, generator=generator).add(0.5)
    x = torch.poisson(rates, generator=generator)
    settings = {"likelihood": name, "latent_dim": 2, "hidden": (16,), "epochs": 5, "display": False}
    run = pyro_vae.fit("vae", data=x, **settings)
    assert run.history["train_loss"].iloc[-1] < run.history["train_loss"].iloc[0]
    draws = run.sample(4, mean=False)
    assert torch.equal(draws, draws.round())
    assert not run.sample(2).requires_grad
    with pytest.raises(InputError, match=r"that are counts, 0, 1, 2, …, .*; use --likelihood gaussian"):
        pyro_vae.fit("vae", data=x + 0.5, **settings)

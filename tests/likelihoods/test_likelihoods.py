from __future__ import annotations

import itertools
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from scipy import stats

import pyro_vae
from pyro_vae.columns import Column
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Binomial,
    Categorical,
    Codes,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    Mixed,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.likelihoods.seen_pixels import leave_out_missing


@pytest.mark.parametrize("name", sorted({*LIKELIHOODS} - {"mixed"}))  # which is of tables alone
def test_every_dimension_of_an_image_is_an_event_dimension(name):
    likelihood = LIKELIHOODS[name]((2, 3, 4))
    p = likelihood(torch.randn(5, 6, *likelihood.params_shape))
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


def test_categories_by_hand():
    """Each entry has logits of its own, those of one entry beside each other; an image's along its channels."""
    params, x = torch.randn(5, 6), torch.tensor([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    likelihood = Categorical((2,), values=3)
    by_hand = sum(
        params[:, 3 * entry : 3 * entry + 3].log_softmax(-1)[torch.arange(5), x[:, entry].long()] for entry in (0, 1)
    )
    torch.testing.assert_close(likelihood(params).log_prob(x), by_hand)
    torch.testing.assert_close(
        likelihood(params).log_prob(x),
        dist.Categorical(logits=params.view(5, 2, 3)).log_prob(x.long()).sum(-1),
    )
    assert likelihood.view()(x).tolist()[0] == [1, 0, 0, 0, 0, 1]
    image = Categorical((2, 4, 4), values=3)
    codes = torch.randint(3, (5, 2, 4, 4)).float()
    seen = image.view()(codes)
    assert seen.shape == (5, *image.seen_shape) == (5, 6, 4, 4)
    assert torch.equal(image(seen * 50).mean, codes)  # logits in the places of the indicators
    assert torch.equal(image(seen * 50).sample(), codes)
    assert (likelihood.view()(torch.tensor([torch.nan, -1.0])) == 0).all()
    with pytest.raises(ValueError, match=r"IntegerInterval\(lower_bound=0, upper_bound=2\)"):
        dist.Independent(Codes(torch.zeros(2, 3), validate_args=True), 1).log_prob(torch.tensor([0.0, 3.0]))


def test_one_scale_for_each_entry():
    """Learned ones reach each entry's error; optimal ones are it, and what is missing does not count."""
    error = torch.randn(4000, 3) * torch.tensor([0.1, 1.0, 10.0])
    rms, mean = error.square().mean(0).sqrt(), error.abs().mean(0)
    for choice, best in (("gaussian", rms), ("laplace", mean)):
        likelihood = LIKELIHOODS.build(f"{choice}:sigma=optimal,scales=each", event_shape=(3,))
        expected = likelihood.family(torch.zeros(3), best).log_prob(error).sum(-1)
        torch.testing.assert_close(likelihood(torch.zeros(4000, 3)).log_prob(error), expected)
        leave_out_missing(likelihood)
        holed = torch.where(torch.rand(4000, 3) < 0.5, torch.nan, error)
        holed[:, 2] = torch.nan
        before = likelihood.log_scale[2].clone()
        seen = likelihood(torch.zeros(4000, 3)).log_prob(holed)
        there = ~holed.isnan()
        errors = [holed[there[:, i], i] for i in (0, 1)]
        scales = [e.square().mean().sqrt() if choice == "gaussian" else e.abs().mean() for e in errors]
        by_hand = sum(
            likelihood.family(torch.tensor(0.0), s).log_prob(e).sum() for e, s in zip(errors, scales, strict=True)
        )
        torch.testing.assert_close(seen.sum(), by_hand, rtol=1e-4, atol=0)
        assert likelihood.log_scale[2] == before


def test_a_row_of_mixed_columns_by_hand():
    """By SciPy, in the columns' own units; a column that is missing is left out; gradients reach every parameter."""
    columns = (
        Column("a", location=170.0, spread=10.0),
        Column("b", "categorical", "text", ("x", "y", "z")),
        Column("c", "laplace:sigma=fixed,scale=0.5", location=2.0, spread=4.0),
        Column("d", "bernoulli"),
        Column("e", "negative_binomial", "integer", logarithmic=True, location=3.0, spread=1.0),
        Column("f", location=-1.0, spread=0.1),
        Column("g", "categorical", "text", ("x", "y")),
    )
    likelihood = Mixed((7,), columns)
    assert likelihood.params_shape == (5 + 3 + 2,)
    params = torch.linspace(-1, 1, 10, requires_grad=True)
    x = torch.tensor([180.0, 2.0, 3.0, 1.0, 7.0, -1.05, 0.0])
    gaussian, b, c, d, e, g = (p.detach().double() for p in params.split([2, 3, 1, 1, 1, 2]))  # by likelihood
    mu = math.exp(e + 3)
    by_hand = [
        stats.norm.logpdf(180, 170 + 10 * gaussian[0], 10),
        b.log_softmax(-1)[2],
        stats.laplace.logpdf(3, 2 + 4 * c, 0.5 * 4)[0],
        d.sigmoid().log()[0],
        stats.nbinom.logpmf(7, 1, 1 / (1 + mu)),
        stats.norm.logpdf(-1.05, -1 + 0.1 * gaussian[1], 0.1),
        g.log_softmax(-1)[0],
    ]
    each = likelihood(params).base_dist.log_prob(x)
    np.testing.assert_allclose(each.detach(), [float(value) for value in by_hand], rtol=1e-4)
    each.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (params, *likelihood.parameters()))
    leave_out_missing(likelihood)
    holed = x.clone()
    holed[[0, 1, 4]] = torch.nan
    seen = likelihood(params).log_prob(holed)
    torch.testing.assert_close(seen, each[[2, 3, 5, 6]].sum(), rtol=1e-5, atol=1e-5)


def test_draws_of_mixed_columns_are_values_of_theirs():
    """Means of 20,000 draws within five standard errors, but for categories, whose mean is their mode."""
    columns = (
        Column("a", "categorical", "text", ("x", "y", "z")),
        Column("b", location=170.0, spread=10.0),
        Column("c", "poisson", "integer", logarithmic=True, location=1.0),
        Column("d", "bernoulli"),
    )
    likelihood = Mixed((4,), columns)
    p = likelihood(torch.tensor([0.0, 2.0, 1.0, 0.5, 0.2, -0.4])).base_dist
    draws = p.expand((20_000, 4)).sample()
    assert p.support.check(draws).all()
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - p.mean).abs() < 5 * error)[1:].all()
    assert p.mean[0] == 1 == draws[:, 0].mode().values
    assert not p.support.check(torch.tensor([3.0, 0.0, 0.5, 0.5])).logical_xor(torch.tensor([0, 1, 0, 0]).bool()).any()
    with pytest.raises(InputError, match=r"rows of a table for the likelihood 'mixed'; got data of shape \(1, 8, 8\)"):
        Mixed((1, 8, 8))

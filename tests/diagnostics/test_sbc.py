"""Simulation-based calibration: exact laws of ranks, exact posteriors, and planted wrong ones."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import binom, kstest

from pyro_vae.diagnostics.ranks import UniformRanks, ranks_among
from pyro_vae.diagnostics.sbc import JOINT, check_exchangeable, coverage, simulation_based_calibration
from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior.simulation import simulate
from tests.diagnostics.planted import bimodal_pair, linear_pair

SEEDS = range(20)


def check(probed, x, seed=0, num_data=200, num_draws=99, num_null=199, **options):
    return simulation_based_calibration(probed, x, num_data, num_draws, num_null, seed, **options)


def made(model, guide, x):
    pair = Pair(model, guide)
    return pair.probe(x)


def test_the_law_of_ranks_is_that_of_all_cases():
    """Five ranks among three draws: all 4^5 sets, equally probable."""
    law = UniformRanks(5, 3)
    sets = torch.tensor(list(itertools.product(range(4), repeat=5))).T
    gamma = law.gamma(sets)
    for value in gamma.unique().tolist():
        share = (gamma <= value * (1 + 1e-9)).double().mean().item()
        assert law.p_value(value) == pytest.approx(share, abs=1e-9)


def test_gamma_by_hand():
    law = UniformRanks(20, 9)
    ranks = torch.arange(20) % 10
    ranks[:6] = 9
    counts = [(ranks < j).sum().item() for j in range(1, 10)]
    p = [2 * min(binom.cdf(c, 20, j / 10), binom.sf(c - 1, 20, j / 10)) for j, c in enumerate(counts, 1)]
    assert law.gamma(ranks.unsqueeze(-1)).item() == pytest.approx(min(1, *p))
    low, high = law.band(0.1)
    for j in range(1, 10):
        inside = [c for c in range(21) if 2 * min(binom.cdf(c, 20, j / 10), binom.sf(c - 1, 20, j / 10)) > 0.1]
        assert (low[j - 1], high[j - 1]) == (inside[0], inside[-1])


def test_ranks_count_what_lies_below():
    values = torch.randn(8, 5, 2)
    below = (values.unsqueeze(0) < values.unsqueeze(1)).sum(1)
    assert torch.equal(ranks_among(values), below)


def test_ties_are_broken_at_random():
    """Forty thousand ranks among three equal values: shares within 5 standard errors, missed in 1 of 10^6 runs."""
    ranks = ranks_among(torch.zeros(4, 40_000, 1))[0, :, 0]
    shares = torch.bincount(ranks, minlength=4) / 40_000
    assert ((shares - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 40_000)).all()


def test_intervals_between_draws_have_the_content_they_state():
    ranks = torch.arange(200).unsqueeze(-1)
    for level in (0.5, 0.8, 0.95):
        found = coverage(ranks, 199, level)
        assert found.nominal == pytest.approx(level)
        assert found.observed.item() == pytest.approx(level)
    coarse = coverage(torch.arange(20).unsqueeze(-1), 19, 0.95)
    assert coarse.observed.item() == pytest.approx(coarse.nominal)


@pytest.mark.slow
def test_p_values_are_uniform_for_the_exact_posterior():
    """Kolmogorov and Smirnov at 0.1 % over 200 seeds of a model with ten correlated latents."""
    probed = linear_pair()
    x = torch.zeros(1, 12)
    found = [check(probed, x, seed, num_data=60, num_draws=39, num_null=99) for seed in range(200)]
    assert kstest([each.p_value for each in found], "uniform").pvalue > 0.001
    assert kstest([each.p_values[0].item() for each in found], "uniform").pvalue > 0.001


@pytest.mark.exhaustive
def test_dependent_quantities_keep_the_level():
    """The same quantity ten times over is one: p-values of 200 seeds are uniform, at 0.1 %."""
    torch.manual_seed(1)
    names = tuple(f"z[{i}]" for i in range(10))
    found = [
        check_exchangeable(torch.randn(20, 100, 1).expand(-1, -1, 10), names, 99, seed).p_value for seed in range(200)
    ]
    assert kstest(found, "uniform").pvalue > 0.001


def test_the_exact_posterior_is_not_flagged():
    """Twenty seeds at the level 1 %, no alarm: 18 % of all choices of seeds have one."""
    probed = linear_pair()
    found = [check(probed, torch.zeros(1, 12), seed) for seed in SEEDS]
    assert all(each.p_value > 0.01 for each in found)
    for level in range(3):  # means over 20 x 200 data within 5 binomial errors, for each of ten coordinates
        seen = torch.stack([each.coverage[level].observed for each in found]).mean(0)
        bound = found[0].coverage[level]
        assert ((seen - bound.nominal).abs() < 5 * bound.error / math.sqrt(20)).all()


def test_ranks_leave_the_band_where_the_p_value_says_so():
    """By the same null draws: some curve is outside the 95 % band exactly where the p-value is at most 5 %."""
    torch.manual_seed(4)
    outside = []
    for seed in range(60):
        values = torch.randn(40, 100, 5)
        values[0] *= 1 + 0.4 * torch.rand(())
        found = check_exchangeable(values, tuple("abcde"), 199, seed)
        law = UniformRanks(100, 39)
        low, high = law.band(found.band_level)
        counts = (found.ranks.numpy()[..., None] < law.points).sum(0)
        outside.append(bool(((counts < low) | (counts > high)).any()))
        assert outside[-1] is (found.p_value <= 0.05)
    assert 5 < sum(outside) < 55


@pytest.mark.parametrize("seeds", [SEEDS[:5], pytest.param(SEEDS[5:], marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("planted", "direction"),
    [
        ({"scale": 0.5}, "too narrow"),
        ({"scale": 2.0}, "too wide"),
        ({"shift": 2.0}, "shifted up"),
        ({"shift": -2.0}, "shifted down"),
    ],
)
def test_planted_posteriors_are_flagged_with_their_direction(planted, direction, seeds):
    probed = linear_pair(**planted)
    for seed in seeds:
        found = check(probed, torch.zeros(1, 12), seed)
        assert found.p_value == 1 / 200
        assert set(found.directions[:-1]) == {direction}
        assert found.as_dict()["wrong"][0]["p_value"] < 1e-6


@pytest.mark.exhaustive
def test_a_missed_mode_is_flagged_and_both_are_not():
    """The exact posterior at the level 1 % as in the test above: 18 % of all choices of seeds have an alarm."""
    right, wrong = bimodal_pair(), bimodal_pair(both=False)
    assert all(check(right, torch.zeros(1), seed).p_value > 0.01 for seed in SEEDS)
    assert all(check(wrong, torch.zeros(1), seed).p_value == 1 / 200 for seed in SEEDS)


def test_coordinates_alone_take_the_prior_for_a_posterior_and_the_joint_density_does_not():
    """The coordinates' alarms at 0.1 % for each of ten, and at 1 % together: 2 % of all choices of a seed."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 10), 1.0).to_event(1))

    model = linear_pair().pair.model
    found = check(made(model, guide, torch.zeros(2, 12)), torch.zeros(1, 12), seed=1)
    assert found.p_values[:-1].min() > 0.001
    assert found.p_values[-1] < 1e-10
    assert found.directions[-1] == "draws too improbable"
    assert check(made(model, guide, torch.zeros(2, 12)), torch.zeros(1, 12), seed=1, joint=False).p_value > 0.01


def test_lost_correlations_are_seen_by_the_joint_density():
    probed = linear_pair(independent=True)
    found = check(probed, torch.zeros(1, 12), num_data=500)
    assert found.p_values[:-1].min() > 0.001
    assert found.p_values[-1] < 1e-6


def labelled(right):
    """x = z + 3 y + noise with a coin y, and its exact posterior, or one that takes y for a fair coin."""

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(torch.full((len(x),), 0.5)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + 3 * y, 0.5), obs=x)

    def guide(x, y=None):
        with pyro.plate("data", len(x)):
            logits = (3 * x - 4.5) / 1.25 if right else torch.zeros(len(x))
            y = pyro.sample("y", dist.Bernoulli(logits=logits), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal((x - 3 * y) / 1.25, math.sqrt(0.2)))

    return made(model, guide, torch.zeros(2))


def test_labels_are_marginal():
    right, wrong = check(labelled(True), torch.zeros(1)), check(labelled(False), torch.zeros(1))
    assert right.names == ("z", JOINT)
    assert right.p_value > 0.01
    assert wrong.p_value == 1 / 200


def test_positive_latents_and_global_ones():
    """A Gamma rate for each datum, and one mean for all data; the exact posteriors pass at the level 1 %."""

    def rates(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Exponential(pyro.sample("rate", dist.Gamma(2.0, 1.0))), obs=x)

    def of_rates(x, scale=1.0):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(3.0, scale * (1 + x)))

    def means(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def of_means(x, scale=1.0):
        pyro.sample("mu", dist.Normal(x.sum() / 6, scale * math.sqrt(1 / 6)))

    for model, guide, x in ((rates, of_rates, torch.ones(2)), (means, of_means, torch.zeros(5))):
        assert check(made(model, guide, x), x, num_data=100).p_value > 0.01
        wrong = check(made(model, lambda x, guide=guide: guide(x, 2.0), x), x, num_data=100)
        assert wrong.p_value == 1 / 200
        assert len(wrong.ranks) == 100


def test_other_plates_keep_their_places():
    """Three parts of a datum, each with a noise of its own: truths are unconstrained as the guide's draws are."""
    noise = torch.tensor([0.1, 1.0, 5.0])

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(3, len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.movedim(-2, -1).squeeze(-2), noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            variance = noise**2 / (1 + noise**2)
            pyro.sample("z", dist.Normal((variance / noise**2 * x).T, variance.sqrt().unsqueeze(-1)))

    probed = made(model, guide, torch.zeros(2, 3))
    torch.manual_seed(2)
    with poutine.trace() as ran:
        target, u = simulate(probed, torch.zeros(4, 3))
    assert not ran.trace.stochastic_nodes
    assert torch.allclose(target.x[:, 0], u[:, 0], atol=0.5)
    assert check(probed, torch.zeros(4, 3), joint=False).p_value > 0.01


def test_data_that_are_observed_in_another_order_are_put_back():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(3, len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))

    x = torch.randn(4, 3)
    assert check(made(model, guide, x), x, num_data=100).p_value > 1e-3  # of an exact guide: once in a thousand less


def test_a_model_that_cannot_generate_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.factor("x", -((x - z) ** 2))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(InputError, match=r"generates its data; got the factor 'x'"):
        check(made(model, guide, torch.zeros(3)), torch.zeros(3))


def test_bad_sizes_and_numbers():
    probed = linear_pair()
    with pytest.raises(InputError, match="at least 10 simulated data and 19 draws; got 0 and 99"):
        check(probed, torch.zeros(1, 12), num_data=0)
    values = torch.randn(20, 40, 2)
    values[3, :5, 1] = math.nan
    found = check_exchangeable(values, ("a", "b"), 19)
    assert (found.num_dropped, found.num_data) == (5, 35)
    with pytest.raises(InputError, match="a NaN for every simulated datum"):
        check_exchangeable(values * math.nan, ("a", "b"), 19)


def test_the_same_seed_gives_the_same_and_moves_nothing_else():
    probed = linear_pair()
    before = torch.get_rng_state()
    one, same, other = (check(probed, torch.zeros(1, 12), seed, num_data=20) for seed in (1, 1, 2))
    assert torch.equal(one.ranks, same.ranks)
    assert not torch.equal(one.ranks, other.ranks)
    assert torch.equal(torch.get_rng_state(), before)

"""NUTS: against exact posteriors, numerical integration, and planted failures."""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.guides import MeanField
from pyro_vae.models import SSVAE, LinearGaussian
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior.mass_matrix import BlockPerDatum, shrunk_covariance
from pyro_vae.posterior.mcmc import Chains, nuts
from pyro_vae.posterior.target import Target


def target_of(model, guide, x, y=None):
    pair = Pair(model, guide)
    return Target(pair.probe(x, y), x, y)


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(1)
    model = LinearGaussian((5,), latent_dim=3)
    with torch.no_grad():
        model.decoder.weight.normal_()
    return target_of(model, MeanField(model), torch.randn(3, 5))


@torch.no_grad()
def test_means_and_widths_are_those_of_the_exact_posterior(linear):
    """Within 5 standard errors by the effective sample size: 18 figures, about one false alarm in 100,000 runs."""
    chains, exact = nuts(linear, 170, 100, 4, seed=3), linear.pair.model.posterior(linear.x)
    error = (chains.draws.mean(0) - exact.mean).abs() / exact.stddev
    assert (error < 5 / chains.ess.sqrt().unsqueeze(-1)).all()
    ratio = chains.draws.std(0) / exact.stddev
    assert ((ratio - 1).abs() < 5 / (chains.ess / 2).sqrt().unsqueeze(-1)).all()  # squares mix slower
    assert chains.is_reference, chains.reasons
    assert chains.u.shape == (4, 170, 3, 3)
    assert 0.5 < chains.acceptance.min() < 1


def test_the_same_seed_gives_the_same_chains_and_leaves_the_noise_alone(linear):
    torch.manual_seed(8)
    before = torch.get_rng_state()
    one, again = (nuts(linear, 4, 5, 2, seed=seed) for seed in (0, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.u, again.u)
    assert not torch.equal(one.u[0], one.u[1])


def test_a_chain_is_the_next_seeds_first(linear):
    two, one = nuts(linear, 4, 20, 2, seed=0), nuts(linear, 4, 20, 1, seed=1)
    assert torch.equal(two.u[1], one.u[0])
    assert any("one chain alone" in reason for reason in one.reasons)


def test_global_latents_of_bounded_support():
    """A gamma posterior, Gamma(2 + 20, 1 + sum x), of a rate outside any plate: mean within 5 standard errors."""
    x = dist.Exponential(3.0).sample((20,))

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Exponential(rate), obs=x)

    found = target_of(model, AutoNormal(model), x)
    chains = nuts(found, 200, 100, 2)
    rate = found.values(chains.draws)["rate"][:, 0]
    exact = dist.Gamma(22.0, 1 + x.sum())
    assert (rate.mean() - exact.mean).abs() < 5 * exact.stddev / chains.ess[0].sqrt()
    assert (rate.std() / exact.stddev - 1).abs() < 5 / (chains.ess[0] / 2).sqrt()
    assert chains.u.shape[2:] == (1, 1)


@pytest.mark.exhaustive
@torch.no_grad()
def test_labels_are_summed_out():
    """A labelled model's marginal posterior of one latent, against integration: mean within 5 standard errors."""
    torch.manual_seed(2)
    model = SSVAE((6,), num_classes=3, latent_dim=1)
    found = target_of(model, MeanField(model), torch.rand(2, 6).round())
    chains = nuts(found, 150, 100, 3)
    grid = torch.linspace(-8, 8, 2001)[:, None, None].expand(-1, 2, 1)
    weight = found.log_density(grid).double().softmax(0)
    mean = (weight * grid[..., 0]).sum(0)
    stddev = (weight * (grid[..., 0] - mean).square()).sum(0).sqrt()
    assert ((chains.draws[..., 0].mean(0) - mean).abs() < 5 * stddev / chains.ess.sqrt()).all()


def two_modes(distance):
    """A latent that is seen through its square: modes at both square roots."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 2.0))
            pyro.sample("x", dist.Normal(z.square(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x),), distance), 0.1))

    return target_of(model, guide, torch.full((2,), distance**2))


def test_chains_in_different_modes_are_no_reference():
    """Four chains fall into one mode with probability 1/8 a datum; the guide knows of one only."""
    chains = nuts(two_modes(3.0), 50, 60, 4, seed=1)
    assert (chains.draws > 2).any()
    assert (chains.draws < -2).any()
    assert not chains.is_reference
    assert any("do not agree" in reason for reason in chains.reasons)


def test_divergences_are_counted_and_no_reference():
    """A funnel (Neal, 2003): its neck is too narrow for any one step size."""

    def model(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(torch.zeros(len(x)), 3.0))
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 8), (v / 2).exp().unsqueeze(-1)).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 100.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 8), 1.0).to_event(1))

    chains = nuts(target_of(model, guide, torch.zeros(1)), 25, 25, 2, target_acceptance=0.6)
    assert chains.divergences > 0
    assert not chains.is_reference
    assert "of 50 transitions diverged" in chains.reasons[0]
    assert chains.as_dict()["reasons"] == list(chains.reasons)


def test_verdicts(linear):
    good = torch.ones(3)
    chains = dataclasses.replace(nuts(linear, 4, 4, 4), r_hat=good, ess=good * 1000, divergences=0)

    def verdict(**changes) -> Chains:
        return dataclasses.replace(chains, **changes)

    assert verdict(r_hat=good * 1.01, ess=good * 1000).is_reference
    assert not verdict(r_hat=good * 1.01, ess=good * 1000, divergences=1).is_reference
    assert not verdict(r_hat=torch.tensor([1.0, 1.2, 1.0]), ess=good * 1000).is_reference
    assert verdict(r_hat=torch.tensor([1.0, 1.2, math.inf]), ess=good * 1000).converged.tolist() == [True, False, False]
    assert verdict(ess=torch.tensor([1000.0, 0.0, 1000.0])).converged.tolist() == [True, False, True]
    assert not verdict(r_hat=good * math.nan, ess=good * 1000).converged.any()
    assert verdict(r_hat=good * math.nan, ess=good * 1000).reasons
    mixed = {"r_hat": torch.tensor([1.0, 1.2, 1.0]), "ess": good * 1000}
    assert verdict(**mixed).usable.tolist() == [True, False, True]
    assert not verdict(**mixed, divergences=1).usable.any()
    alone = {name: getattr(chains, name)[:1] for name in ("u", "acceptance", "step_sizes")}
    assert not verdict(**mixed, **alone).usable.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "at least 4 draws per chain; got 0"),
        ({"num_chains": 0}, "at least one chain; got 0"),
        ({"num_warmup": 0}, "at least one transition of warm-up; got 0"),
        ({"target_acceptance": 1.0}, "between 0 and 1"),
    ],
)
def test_nothing_to_draw_is_refused(linear, arguments, message):
    with pytest.raises(InputError, match=message):
        nuts(linear, **arguments)


def test_no_continuous_latent_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(y.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(torch.ones(len(x), 3)), infer={"enumerate": "parallel"})

    with pytest.raises(InputError, match="a continuous latent site"):
        nuts(target_of(model, guide, torch.randn(3)))


def test_a_density_that_is_nowhere_finite_is_said():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.factor("nowhere", torch.full_like(z, -torch.inf))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(PyroVAEError, match="none of 100 draws"):
        nuts(target_of(model, guide, torch.zeros(2)), 4, 4, 1)


def test_the_mass_matrix_scales_momenta_block_by_block():
    factor = torch.randn(2, 3, 3) * 0.3 + torch.eye(3)
    covariance = factor @ factor.mT
    mass = BlockPerDatum(covariance)
    mass.configure({("u",): (6,)})
    standard = {("u",): torch.randn(6)}
    r = mass.scale(standard, {"u": torch.zeros(2, 3)})
    torch.testing.assert_close(mass.unscale(r)[("u",)], standard[("u",)])
    v = mass.kinetic_grad(r)["u"]
    torch.testing.assert_close(v, (covariance @ r["u"].unsqueeze(-1)).squeeze(-1))
    energy = (r["u"] * v).sum()
    torch.testing.assert_close(energy, standard[("u",)].square().sum())  # r^T C r, twice the kinetic energy


def test_the_covariance_of_many_draws_is_theirs_and_of_one_is_the_identity():
    draws = torch.randn(20_000, 2, 3) @ torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 0.1]]).T
    found = shrunk_covariance(draws)
    torch.testing.assert_close(found[0], draws[:, 0].T.cov(), atol=2e-3, rtol=1e-3)
    line = torch.linspace(-30, 30, 40)[:, None, None].expand(40, 1, 2)  # correlated entirely, and of a large variance
    assert torch.linalg.cholesky(shrunk_covariance(line)).isfinite().all()
    torch.testing.assert_close(shrunk_covariance(draws[:1]), torch.eye(3).expand(2, 3, 3))

from __future__ import annotations

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

from pyro_vae.data import Images
from pyro_vae.diagnostics import evaluate
from pyro_vae.diagnostics.gaps import BY_ANNEALING, BY_REFINED, inference_gap
from pyro_vae.diagnostics.local_families import DIAGONAL, FULL_RANK, OWN_FAMILY, Offsets
from pyro_vae.diagnostics.refinement import Refinement, ascent
from pyro_vae.errors import InputError
from pyro_vae.guides import FullRank, MeanField
from pyro_vae.models import LinearGaussian
from pyro_vae.pairs import Pair
from pyro_vae.posterior import Target
from pyro_vae.posterior.annealing import Annealing
from pyro_vae.runs.display import listening
from tests.conftest import LinearNetwork, make_pair

QUICK = Refinement(round_steps=50)


class Exact:
    """A linear-Gaussian model with a correlated posterior, and the best guides in closed form."""

    def __init__(self, latent_dim=3, data_dim=6, num_data=20):
        torch.manual_seed(1)
        self.model = LinearGaussian((data_dim,), latent_dim)
        with torch.no_grad():
            self.model.decoder.weight.copy_(torch.randn(data_dim, latent_dim) + torch.randn(data_dim, 1))
            z, noise = torch.randn(num_data, latent_dim), torch.randn(num_data, data_dim)
            self.x = self.model.decoder(z) + noise
            posterior = self.model.posterior(self.x)
            self.covariance, self.precision = posterior.covariance_matrix[0], posterior.precision_matrix[0]
            self.evidence = self.model.evidence(self.x).double()
            self.loc = posterior.mean
            self.weight = self.covariance @ self.model.decoder.weight.T  # of the posterior mean, s = 1
            self.bias = -self.weight @ self.model.decoder.bias
            assert torch.allclose(self.x @ self.weight.T + self.bias, self.loc, atol=1e-4)

    @property
    def diagonal_cost(self):
        """KL(best diagonal normal || posterior): variances 1 / precision_ii."""
        return ((self.precision.diagonal().log().sum() - torch.logdet(self.precision)) / 2).item()

    def mean_field(self, shift=0.0):
        """The best diagonal guide, its mean shifted."""
        guide = MeanField(self.model, network=LinearNetwork())
        family = guide.conditionals["z"].family
        with torch.no_grad():
            self._set_loc(family, shift)
            family.log_scale.weight.zero_()
            family.log_scale.bias.copy_(-self.precision.diagonal().log() / 2)
        return guide

    def full_rank(self, shift=0.0):
        """The exact guide, its mean shifted."""
        guide = FullRank(self.model, network=LinearNetwork())
        family = guide.conditionals["z"].family
        with torch.no_grad():
            self._set_loc(family, shift)
            family.cholesky.weight.zero_()
            factor = torch.linalg.cholesky(self.covariance)
            family.cholesky.bias.copy_(family.to_lower.inv(factor).flatten())
        return guide

    def cost_of(self, shift):
        """KL(q shifted || posterior) - KL(q || posterior), whatever the normal q is."""
        delta = torch.full((len(self.precision),), shift)
        return (delta @ self.precision @ delta / 2).item()

    def _set_loc(self, family, shift):
        family.loc.weight.copy_(self.weight)
        family.loc.bias.copy_(self.bias + shift)


def split(guide, exact, **kwargs):
    torch.manual_seed(0)
    pair = Pair(exact.model, guide)
    return inference_gap(Target(pair.probe(exact.x), exact.x), **{"refinement": QUICK, "num_samples": 20_000} | kwargs)


@pytest.mark.parametrize("shift", [pytest.param(0.0, marks=pytest.mark.exhaustive), 0.4])
def test_both_parts_of_a_diagonal_guide_have_their_closed_forms(shift):
    """Figures of 20 data by 20,000 draws: standard errors of 0.005, asked for within 0.05 (likelihood: 0.03)."""
    exact = Exact()
    gap = split(exact.mean_field(shift), exact)
    assert exact.diagonal_cost > 0.3
    assert gap.approximation_gap.mean == pytest.approx(exact.diagonal_cost, abs=0.05)
    assert gap.amortization_gap.mean == pytest.approx(exact.cost_of(shift), abs=0.05)
    assert gap.log_likelihood.mean().item() == pytest.approx(exact.evidence.mean().item(), abs=0.03)
    total = gap.approximation_gap.mean + gap.amortization_gap.mean
    assert gap.inference_gap.mean == pytest.approx(total, abs=1e-6)
    assert (gap.family, gap.converged) == (OWN_FAMILY, True)
    assert gap.source == BY_REFINED or not shift  # else both are as good


@pytest.mark.parametrize("shift", [pytest.param(0.0, marks=pytest.mark.exhaustive), 0.4])
def test_a_full_rank_guide_has_no_approximation_gap(shift):
    """The exact posterior has weights that do not vary, so its figures have no noise at all."""
    exact = Exact()
    gap = split(exact.full_rank(shift), exact)
    assert gap.approximation_gap.mean == pytest.approx(0, abs=0.02)
    assert gap.amortization_gap.mean == pytest.approx(exact.cost_of(shift), abs=0.05)
    assert gap.log_likelihood.tolist() == pytest.approx(exact.evidence.tolist(), abs=0.02)
    if not shift:
        assert gap.inference_gap.mean == pytest.approx(0, abs=1e-3)


def test_layers_in_the_encoder_are_refined_too():
    """An encoder of two layers whose last is blind to x: q is one normal for all data until it is refined."""
    exact = Exact()
    guide = MeanField(exact.model)
    with torch.no_grad():
        guide.conditionals["z"].encoder.rest[-2].weight.zero_()
    gap = split(guide, exact, refinement=Refinement())
    assert gap.amortization_gap.mean > 5
    assert gap.approximation_gap.mean == pytest.approx(exact.diagonal_cost, abs=0.05)


def test_the_figures_are_those_of_an_independent_evaluation(x):
    """Two estimates by 4,000 draws each: within 0.1 nats."""
    pair = make_pair("vae")
    probed = pair.probe(x)
    gap = inference_gap(Target(probed, x), num_samples=4000)
    known = evaluate(probed, Images(x), num_samples=4000)
    total = gap.approximation_gap.mean + gap.amortization_gap.mean
    assert total == pytest.approx(-known.nll - known.elbo, abs=0.1)


def test_labels_have_a_posterior_of_their_own(x):
    """The best q(y | x) weighs the best bounds of the classes: L* = log sum_y exp L*_y; within 0.03 nats a datum."""
    pair = make_pair("ss_vae")
    settings = {"num_samples": 4000, "refinement": QUICK}
    unlabelled = inference_gap(Target(pair.probe(x), x), **settings)
    bounds = []
    for k in range(3):
        y = torch.full((7,), k)
        bounds.append(inference_gap(Target(pair.probe(x, y), x, y), **settings).refined_elbo)
    best = torch.stack(bounds).logsumexp(0)
    assert unlabelled.refined_elbo.tolist() == pytest.approx(best.tolist(), abs=0.03)
    assert unlabelled.amortization_gap.mean > 0.02


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("model", "guide"),
    [
        pytest.param("hvae", "mean_field", marks=pytest.mark.exhaustive),
        ("vae", "iaf"),
        pytest.param("vae", "planar", marks=pytest.mark.exhaustive),
        ("ss_vae", "iaf"),
        pytest.param("db_vae", "mixture", marks=pytest.mark.exhaustive),
    ],
)
def test_refining_never_costs(model, guide, x):
    """Gaps of each pair by 1,000 draws: no more below 0 than 0.02 nats, several standard errors."""
    pair = make_pair(model, guide)
    gap = inference_gap(Target(pair.probe(x), x), num_samples=1000, refinement=Refinement(max_steps=150))
    assert gap.family == OWN_FAMILY
    assert (gap.refined_elbo - gap.elbo).min() > -0.02
    assert gap.amortization_gap.mean > 0
    assert gap.approximation_gap.mean > -0.02


def test_offsets_have_a_row_for_each_datum_and_label(x):
    pair = make_pair("ss_vae")  # q(y | x): two layers; q(z | x, y): the maps of x and y, and both heads at once
    shapes = [tuple(start.shape) for start in Offsets(Target(pair.probe(x), x)).start]
    assert shapes == [(7, 16), (7, 3), (7, 16), (3, 1, 7, 4)]


@pytest.mark.usefixtures("graph")
def test_a_compiled_search_climbs_as_an_eager_one(x):
    pair = make_pair("vae")
    family = Offsets(Target(pair.probe(x), x))
    parameters, notes, found = [torch.randn(start.shape) for start in family.start], [], []
    for steps in (10, 10**6):
        with listening(notes.append):
            draw = ascent(family, parameters, Refinement(max_steps=steps))
        torch.manual_seed(2)
        found.append(draw())
    assert "eagerly" in notes[0]
    assert notes[1].startswith("compiling the refinement")
    (eager, gradients), (compiled, others) = found
    assert torch.allclose(eager, compiled, rtol=1e-4, atol=1e-4)
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
        assert one.abs().max() > 0


def test_score_function_sites_are_refined():
    """As the diagonal guide in closed form, by the noisier gradient: within 0.1 nats."""
    exact = Exact(latent_dim=1, data_dim=3)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Linear(3, 1)
            with torch.no_grad():
                self.loc.weight.copy_(exact.weight)
                self.loc.bias.copy_(exact.bias + 0.5)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                scale = exact.covariance.sqrt().expand(len(x), 1)
                pyro.sample("z", NonreparameterizedNormal(self.loc(x), scale).to_event(1))

    gap = split(Guide(), exact)
    assert gap.amortization_gap.mean == pytest.approx(exact.cost_of(0.5), abs=0.1)
    assert gap.approximation_gap.mean == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("correlated", [False, True])
def test_guides_without_layers_are_refined_by_normals(correlated):
    exact = Exact()
    loc, scale = exact.loc + 0.3, exact.precision.diagonal().rsqrt()
    cost = 0.0 if correlated else exact.diagonal_cost

    def guide(x):
        mean = pyro.param("loc", loc)
        with pyro.plate("data", len(x)):
            if correlated:
                q = dist.MultivariateNormal(mean, exact.covariance)
            else:
                q = dist.Normal(mean, scale).to_event(1)
            pyro.sample("z", q)

    gap = split(guide, exact)
    assert gap.family == (FULL_RANK if correlated else DIAGONAL)
    assert gap.amortization_gap.mean == pytest.approx(exact.cost_of(0.3), abs=0.05)
    assert gap.approximation_gap.mean == pytest.approx(cost, abs=0.05)


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_latents_of_all_data_are_one_datum(family):
    """Two levels seen only by their sum: evidence and best diagonal normal in closed form."""

    def model(x):
        a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    x = torch.tensor([0.5, 1.0, 1.5])
    pair = Pair(model, family(model, init_scale=0.5))
    gap = inference_gap(Target(pair.probe(x), x))
    evidence = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 2).log_prob(x).item()
    precision = torch.eye(2) + 3
    cost = ((precision.diagonal().log().sum() - torch.logdet(precision)) / 2).item() if family is AutoNormal else 0.0
    assert gap.family == (DIAGONAL if family is AutoNormal else FULL_RANK)
    assert gap.log_likelihood.tolist() == pytest.approx([evidence], abs=0.05)
    assert gap.approximation_gap.mean == pytest.approx(cost, abs=0.05)
    assert gap.as_dict()["amortization_gap_standard_error"] is None


def test_the_largest_lower_bound_stands_for_the_likelihood():
    """With one draw, importance weights are the bound itself, and annealing is far above it."""
    exact = Exact()
    gap = split(exact.mean_field(0.4), exact, num_samples=1, annealing=Annealing(16, 100, 4))
    assert gap.source == BY_ANNEALING
    assert gap.log_likelihood.mean().item() == pytest.approx(exact.evidence.mean().item(), abs=0.3)


def test_steps_that_run_out_are_no_convergence():
    exact = Exact()
    gap = split(exact.mean_field(2.0), exact, refinement=Refinement(max_steps=30, lr=0.001), num_samples=100)
    assert (gap.steps, gap.converged, len(gap.trace)) == (30, False, 1)


def test_data_without_finite_figures_are_left_out_and_counted():
    exact = Exact()
    pair = Pair(exact.model, exact.mean_field(0.4))
    probed = pair.probe(exact.x)
    exact.x[3] = math.nan
    gap = inference_gap(Target(probed, exact.x), refinement=QUICK)
    assert gap.num_excluded == 1
    assert gap.amortization_gap.mean == pytest.approx(exact.cost_of(0.4), abs=0.05)
    found = json.loads(json.dumps(gap.as_dict(), allow_nan=False))
    assert (found["num_data"], found["num_excluded"]) == (20, 1)
    assert found["log_likelihood"] - found["elbo"] == pytest.approx(found["inference_gap"])


def test_the_same_seed_gives_the_same_figures_and_nothing_else_moves(x):
    pair = make_pair("vae")
    probed = pair.probe(x)
    pair.train()
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in pair.state_dict().items()}
    settings = {"num_samples": 20, "refinement": Refinement(max_steps=20)}
    one, same, other = (inference_gap(Target(probed, x), seed=seed, **settings) for seed in (4, 4, 5))
    assert torch.equal(one.refined_elbo, same.refined_elbo)
    assert not torch.equal(one.refined_elbo, other.refined_elbo)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in pair.state_dict().items())
    assert pair.guide.training


def test_bad_settings_are_refused(x):
    pair = make_pair("vae")
    with pytest.raises(InputError, match="at least one draw per datum; got 0"):
        inference_gap(Target(pair.probe(x), x), num_samples=0)
    with pytest.raises(InputError, match="positive numbers to refine by"):
        Refinement(lr=0.0)

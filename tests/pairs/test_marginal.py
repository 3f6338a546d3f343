"""Discrete sites that the model sums out, against sums by hand."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair, draw, draw_terms, temper
from pyro_vae.posterior import Target

PI = torch.tensor([0.2, 0.5, 0.3])
MU = torch.tensor([-2.0, 0.0, 3.0])


@config_enumerate
def clusters(x):
    """The prior of z is a mixture, and x depends on its component, too."""
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(PI))
        z = pyro.sample("z", dist.Normal(MU[k], 1.0))
        pyro.sample("seen", dist.Normal(z + k, 0.5), obs=x[:, 0])


def guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x[:, 0] / 2, 1.5))


def joint_by_hand(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(z) and log p(x, z), for x of shape (N, 1) and z of shape (S, N)."""
    k = torch.arange(3.0)
    prior = PI.log() + dist.Normal(MU, 1.0).log_prob(z.unsqueeze(-1))
    likelihood = dist.Normal(z.unsqueeze(-1) + k, 0.5).log_prob(x)
    return prior.logsumexp(-1), (prior + likelihood).logsumexp(-1)


@pytest.fixture
def rows() -> Tensor:
    return 2 * torch.randn(7, 1)


def test_terms_are_sums_over_the_values(rows):
    probed = Pair(clusters, guide).probe(rows)
    assert (probed.marginal, probed.combinations) == (("k",), 3)
    draws = draw(probed, rows, num_samples=4)
    prior, joint = joint_by_hand(rows, draws.q.nodes["z"]["value"])
    torch.testing.assert_close(draws.terms.prior[0], prior)
    torch.testing.assert_close(draws.terms.observed[0], joint - prior)
    torch.testing.assert_close(draws.prior_at("z")[0], prior)


def test_beta_weighs_the_summed_prior(rows):
    probed = Pair(clusters, guide).probe(rows)
    with temper(0.25):
        terms = (draws := draw(probed, rows, num_samples=4)).terms
    prior, joint = joint_by_hand(rows, draws.q.nodes["z"]["value"])
    torch.testing.assert_close(terms.prior[0], 0.25 * prior)
    torch.testing.assert_close(terms.observed[0], joint - prior)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_density_is_annealed_inside_the_sum(rows, temperature):
    target, z = Target(Pair(clusters, guide).probe(rows), rows), torch.randn(5, 7)
    k = torch.arange(3.0)
    prior = PI.log() + dist.Normal(MU, 1.0).log_prob(z.unsqueeze(-1))
    likelihood = dist.Normal(z.unsqueeze(-1) + k, 0.5).log_prob(rows)
    expected = (prior + temperature * likelihood).logsumexp(-1)
    torch.testing.assert_close(target.log_density(z.unsqueeze(-1), temperature), expected)
    each = target.log_density(z.unsqueeze(-1), torch.full((5, 7), temperature))
    torch.testing.assert_close(each, expected)


def test_the_objective_is_that_of_pyro(rows):
    pair = Pair(clusters, lambda x: guide_with_width(x))
    objective = OBJECTIVES.build("elbo", probed=pair.probe(rows))
    torch.manual_seed(3)
    ours = objective(rows)
    torch.manual_seed(3)
    with pair.scope():
        stock = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(pair.model, pair.guide, rows) / len(rows)
    torch.testing.assert_close(ours, stock)


def guide_with_width(x):
    width = pyro.param("width", torch.tensor(1.5), dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x[:, 0] / 2, width))


def test_importance_weights_reach_the_evidence(rows):
    terms = draw_terms(Pair(clusters, guide).probe(rows), rows, num_samples=20_000)
    spread = (1.0 + 0.25) ** 0.5
    exact = (PI.log() + dist.Normal(MU + torch.arange(3.0), spread).log_prob(rows)).logsumexp(-1)
    estimate = terms.log_weights.logsumexp(0) - torch.tensor(20_000.0).log()
    torch.testing.assert_close(estimate, exact, atol=0.1, rtol=0)


def test_a_chain_costs_its_parts_and_not_its_paths(rows):
    """Twenty steps have 3^20 paths."""

    @config_enumerate
    def chain(x):
        with pyro.plate("rows", len(x)):
            state = None
            for t in pyro.markov(range(20)):
                p = PI if state is None else PI.expand(3, 3)[state]
                state = pyro.sample(f"k_{t}", dist.Categorical(p))
                pyro.sample(f"x_{t}", dist.Normal(MU[state], 1.0), obs=x[:, 0])

    terms = draw_terms(Pair(chain, lambda x: None).probe(rows), rows, num_samples=1)
    exact = 20 * (PI.log() + dist.Normal(MU, 1.0).log_prob(rows)).logsumexp(-1)  # the states are independent
    torch.testing.assert_close(terms.log_weights[0], exact)


def test_several_scales_inside_a_sum_are_refused(rows):
    @config_enumerate
    def scaled(x):
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Categorical(PI))
            with pyro.poutine.scale(scale=0.5):
                z = pyro.sample("z", dist.Normal(MU[k], 1.0))
            pyro.sample("x", dist.Normal(z + k, 0.5), obs=x[:, 0])

    probed = Pair(scaled, guide).probe(rows)
    with pytest.raises(InputError, match="one scale for all sites"):
        _ = draw(probed, rows).terms
    assert draw(probed, rows, scaled=False).terms.elbo.isfinite().all()

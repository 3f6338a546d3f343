"""A bound stays below the evidence, also where values lie at the end of their support."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch.distributions import biject_to

from pyro_vae.guides.reach import FARTHEST, WithinReach
from pyro_vae.guides.shared import SharedNormal
from pyro_vae.guides.site_distribution import ContinuousLayout, SiteDistribution

PRIORS = {
    "gamma": (dist.Gamma(0.1, 1.0), constraints.positive, 0),
    "beta": (dist.Beta(0.05, 0.05), constraints.unit_interval, 0),
    "dirichlet": (dist.Dirichlet(torch.full((30,), 1 / 30)), constraints.simplex, 1),
}
PLACES = [(0.0, 1.0), (-100.0, 30.0), (-200.0, 100.0), (-300.0, 1.0)]


def bound(prior, q) -> float:
    """E_q[log p - log q] of a prior without data, whose evidence is 0, from 200 draws."""
    found = []
    for _ in range(200):
        value = q.rsample()
        found.append((prior.log_prob(value).sum() - q.log_prob(value).sum()).item())
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("loc", "scale"),
    [PLACES[0], PLACES[1], *(pytest.param(*place, marks=pytest.mark.exhaustive) for place in PLACES[2:])],
)
@pytest.mark.parametrize(("prior", "support", "event_dim"), PRIORS.values(), ids=PRIORS)
def test_without_data_the_bound_is_below_zero(prior, support, event_dim, loc, scale):
    torch.manual_seed(0)
    shared = SharedNormal(prior.sample((50,)).clamp(min=1e-30), support, event_dim)
    with torch.no_grad():
        shared.loc.fill_(loc)
        shared.log_scale.fill_(math.log(scale))
        assert bound(prior, shared()) < 0
    layout = ContinuousLayout((1,), tuple(prior.event_shape), -1, support)
    of_each = SiteDistribution(dist.Normal(torch.full((1, layout.size), loc), scale).to_event(1), layout)
    assert bound(prior, of_each) < 0


def test_a_plain_bijection_has_no_bound():
    """What the tests above would find: beyond the reach of 32 bits the density of one value stands for all."""
    prior, plain = dist.Gamma(0.1, 1.0), biject_to(constraints.positive)
    u = dist.Normal(-1000.0, 100.0).sample((1000,))
    value = plain(u.clamp(-FARTHEST, FARTHEST))
    log_p = prior.log_prob(value) + plain.log_abs_det_jacobian(u.clamp(-FARTHEST, FARTHEST), value)
    log_q = dist.Normal(-1000.0, 100.0).log_prob(u)
    far = WithinReach(plain)
    assert (log_p - log_q).mean() > -6  # the truth is -95: log(0.1) less a tenth of 1,000, and the entropy
    assert (prior.log_prob(value) + far.log_abs_det_jacobian(u, value) - log_q).mean() < -95


def test_within_reach_it_is_the_bijection():
    plain = biject_to(constraints.simplex)
    u = torch.randn(5, 4) * 5
    assert torch.equal(WithinReach(plain)(u), plain(u))
    assert torch.equal(WithinReach(plain).log_abs_det_jacobian(u, plain(u)), plain.log_abs_det_jacobian(u, plain(u)))

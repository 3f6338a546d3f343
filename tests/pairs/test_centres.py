"""Centres: closed forms, labels summed by hand, what has no mean, and that nothing is drawn."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_vae.errors import InputError
from pyro_vae.pairs import Pair
from pyro_vae.pairs.centres import centres, class_probabilities, expected
from tests.conftest import make_pair


def test_of_one_normal_they_are_its_mean_and_spread(linear_gaussian):
    x = linear_gaussian.sample(6)
    q = linear_gaussian.guide.posterior(x)
    found = centres(linear_gaussian.probed, x)["z"]
    torch.testing.assert_close(found.mean, q.mean)
    torch.testing.assert_close(found.sd, q.stddev)
    means = expected(linear_gaussian.probed, torch.zeros(6, 5), {"z": q.mean})
    torch.testing.assert_close(means, q.mean @ linear_gaussian.w.T + linear_gaussian.b)


def test_labels_are_averaged_as_by_hand(x):
    pair = make_pair("ss_vae")
    probed = pair.probe(x)
    weights = pair.guide.posterior  # q(z | x, y)
    probs = class_probabilities(probed, x)
    each = [weights(x, torch.full((len(x),), label)) for label in range(3)]
    mean = sum(probs[:, [k]] * q.mean for k, q in enumerate(each))
    second = sum(probs[:, [k]] * (q.variance + q.mean.square()) for k, q in enumerate(each))
    found = centres(probed, x)["z"]
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.sd, (second - mean.square()).sqrt())


@pytest.mark.parametrize("model", ["vae", "hvae", "ss_vae", "adgm", "sdgm", "db_vae", "cvae"])
def test_nothing_is_drawn(model, x):
    pair = make_pair(model)
    probed = pair.probe(x)
    for _ in range(2):  # the first look at a pair finds out how it can be run
        state = torch.get_rng_state()
        first, second = (centres(probed, x) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name].mean, second[name].mean) for name in first)


@pytest.mark.parametrize("guide", ["iaf", "spline", "planar", "householder", "mixture", "low_rank", "full_rank"])
def test_every_guide_has_a_centre_within_its_draws(guide, x):
    pair = make_pair("vae", guide)
    probed = pair.probe(x)
    with torch.no_grad():
        draws = pair.guide.posterior(x.repeat(4000, 1, 1, 1)).sample().unflatten(0, (4000, -1))
    found = centres(probed, x)["z"].mean
    # every family starts near a normal: the mean of 4,000 draws has an error of 0.016 sd, here at most six of them
    assert ((found - draws.mean(0)) / draws.std(0)).abs().max() < 0.25


def test_a_guide_made_for_a_program_has_one():
    from pyro_vae.guides import amortize

    def model(x):
        with pyro.plate("rows", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    x = torch.rand(20) * 4
    guide = amortize(model, "mean_field", x)
    found = centres(Pair(model, guide).probe(x), x)["rate"].mean
    with torch.no_grad():
        draws = torch.stack([poutine.trace(guide).get_trace(x).nodes["rate"]["value"] for _ in range(500)])
    # T is monotone, so that T of a median is the median; 500 draws place it within 0.06 sd or so
    assert (draws.median(0).values - found[:, 0]).abs().max() < 0.3 * draws.std(0).max()


def test_what_has_no_centre_is_said():
    class NoMean(dist.TorchDistribution):
        arg_constraints, support = {}, dist.constraints.real

        def __init__(self, shape):
            super().__init__(shape, validate_args=False)

        def expand(self, batch_shape, _instance=None):
            return NoMean(torch.Size(batch_shape))

        def sample(self, sample_shape=()):
            return torch.zeros(torch.Size(sample_shape) + self.batch_shape)

        rsample = sample

        def log_prob(self, value):
            return torch.zeros_like(value)

    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", NoMean(torch.Size([x.shape[0]])))

    x = torch.zeros(3)
    probed = Pair(model, guide).probe(x)
    with pytest.raises(InputError, match=r"expected a distribution with a mean at the site 'z'.* got NoMean"):
        centres(probed, x)

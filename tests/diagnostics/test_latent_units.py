"""What the latents are used for, and the aggregate posterior beside the prior: closed forms and planted failures."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import binom, ks_2samp
from torch.distributions import kl_divergence

from pyro_vae.data import Images
from pyro_vae.diagnostics import evaluate
from pyro_vae.diagnostics.aggregate import aggregate_posterior
from pyro_vae.diagnostics.latent_units import latent_use
from pyro_vae.diagnostics.two_sample import energy_test
from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import draw_terms
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior import Target
from tests.conftest import make_pair
from tests.diagnostics.planted import linear_model, linear_pair


def data(num_data, seed=0):
    """Data drawn from the linear model."""
    model = linear_model()
    torch.manual_seed(seed)
    return model.decoder(torch.randn(num_data, 10)) + 0.4 * torch.randn(num_data, 12)


def slow_energy(first, second):
    def mean(a, b, same):
        pairs = [(i, j) for i, j in itertools.product(range(len(a)), range(len(b))) if not (same and i == j)]
        return sum((a[i] - b[j]).norm() for i, j in pairs) / len(pairs)

    return 2 * mean(first, second, False) - mean(first, first, True) - mean(second, second, True)


def test_the_energy_distance_by_hand():
    first, second = torch.randn(5, 3).double(), 1 + torch.randn(7, 3).double()
    scaled = torch.cat([first, second]).std(0)
    found = energy_test(first, second, 9)
    assert found.distance == pytest.approx(slow_energy(first / scaled, second / scaled).item())


def test_the_permutation_test_counts_all_relabelings():
    """Three against three points: of 20 labellings two are the most extreme; 5 standard errors of 20,000."""
    first, second = torch.tensor([[0.0], [0.1], [0.3]]), torch.tensor([[7.0], [7.4], [8.0]])
    found = energy_test(first, second, 20_000)
    assert found.p_value == pytest.approx(0.1, abs=5 * math.sqrt(0.1 * 0.9 / 20_000))
    assert 0.5 < found.relative <= 1


def test_the_energy_distance_of_two_normals():
    """E|X - Y| of normals is known in one dimension; within 5 % at 2,000 points, more than 6 standard errors."""

    def mean_distance(loc, scale):  # of |N(loc, scale^2)|
        d = dist.Normal(0.0, 1.0)
        return scale * math.sqrt(2 / math.pi) * math.exp(-(loc**2) / (2 * scale**2)) + loc * (
            1 - 2 * d.cdf(torch.tensor(-loc / scale)).item()
        )

    first, second = torch.randn(2000, 1), 2 + torch.randn(2000, 1)
    pooled = torch.cat([first, second]).std().item()
    exact = (2 * mean_distance(2.0, math.sqrt(2)) - 2 * mean_distance(0.0, math.sqrt(2))) / pooled
    assert energy_test(first, second, 1).distance == pytest.approx(exact, rel=0.05)


def test_the_aggregate_of_the_exact_posterior_is_the_prior():
    """Eighty seeds: at most 10 alarms at 5 %, passed by 99.6 % of all choices of seeds; none at 0.1 % in a unit."""
    probed = linear_pair()
    found = [aggregate_posterior(Target(probed, data(100, seed)), 100, 99, seed) for seed in range(80)]
    alarms = sum(each.p_value <= 0.05 for each in found)
    assert binom.sf(10, 80, 0.05) < 0.004
    assert alarms <= 10
    assert sum(each.p_value <= 0.5 for each in found) >= 25  # 40 are expected, with a standard deviation of 4.5
    assert min(each.unit_p_values.min().item() for each in found) > 0.001


def test_a_shifted_aggregate_is_seen():
    probed = linear_pair(shift=2.0)
    for seed in range(20):
        found = aggregate_posterior(Target(probed, data(400, seed)), 400, 199, seed)
        assert found.p_value == 1 / 200
        assert (found.shift > 0.2).all()
        worst = found.as_dict()["units"][0]
        assert worst["p_value"] == found.unit_p_values.min().item()
        assert worst["p_value"] < 1e-6


def test_a_narrow_aggregate_is_seen():
    probed = linear_pair(scale=0.1)
    for seed in range(20):
        found = aggregate_posterior(Target(probed, data(400, seed)), 400, 199, seed)
        assert found.p_value == 1 / 200
        assert found.spread.min() < 0.8


def test_holm_by_hand():
    probed = linear_pair()
    found = aggregate_posterior(Target(probed, data(50)), 50, 9)
    raw = [ks_2samp(found.posterior[:, i], found.prior[:, i]).pvalue for i in range(10)]
    order = sorted(range(10), key=raw.__getitem__)
    expected, running = {}, 0.0
    for place, i in enumerate(order):
        running = max(running, (10 - place) * raw[i])
        expected[i] = min(1.0, running)
    assert found.unit_p_values.tolist() == pytest.approx([expected[i] for i in range(10)])


def test_few_data_and_global_latents_are_refused():
    probed = linear_pair()
    with pytest.raises(InputError, match="at least 20 data with finite latents; got 5"):
        aggregate_posterior(Target(probed, data(5)))
    with pytest.raises(InputError, match="at least 2 data and 2 draws of each; got 5 and 1"):
        latent_use(probed, data(5), 1)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    x = torch.zeros(30)
    probed = Pair(model, guide).probe(x)
    for function in (lambda: aggregate_posterior(Target(probed, x)), lambda: latent_use(probed, x)):
        with pytest.raises(InputError, match="every sample site inside"):
            function()


def test_activity_and_divergence_in_closed_form():
    """The linear model's exact posterior, with its correlations and without; Monte Carlo error in the former's KL."""
    x = data(300)
    for independent in (False, True):
        probed = linear_pair(independent=independent)
        (site,) = latent_use(probed, x).sites
        exact = probed.pair.model.posterior(x)
        sd = exact.variance.sqrt()
        of_units = kl_divergence(dist.Normal(exact.mean, sd), dist.Normal(0.0, 1.0)).mean(0)
        assert torch.allclose(site.activity, exact.mean.var(0).double(), rtol=1e-4)
        assert torch.allclose(site.unit_kl, of_units.double(), rtol=1e-4)
        assert site.adds_up is independent
        prior = dist.MultivariateNormal(torch.zeros(10), torch.eye(10))
        q = dist.MultivariateNormal(exact.mean, torch.diag_embed(sd**2)) if independent else exact
        assert site.kl == pytest.approx(kl_divergence(q, prior).mean().item(), rel=0.02)
        assert (site.unit_kl.sum() < site.kl - 0.5) is not independent
        if independent:
            assert site.unit_kl.sum().item() == pytest.approx(site.kl, rel=1e-6)


def test_noise_of_unknown_means_makes_no_unit_active():
    """Draws alone of N(0, 1), 8 of each datum: their means have the variance 1/8, none of which is activity."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        flow = dist.transforms.AffineTransform(0.0, 1.0)
        signal = torch.stack([x, 0 * x, 0 * x], -1)
        with pyro.plate("data", len(x)):
            base = dist.Normal(signal, 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    pair, x = Pair(model, guide), 0.5 * torch.randn(2000)
    (site,) = latent_use(pair.probe(x), x, 8).sites
    assert site.active.tolist() == [True, False, False]
    assert site.activity[0].item() == pytest.approx(x.var().item(), rel=0.1)
    assert site.unit_kl is None
    assert site.kl == pytest.approx((x**2 / 2).mean().item(), abs=0.1)


@pytest.mark.parametrize("model", ["vae", "hvae", "ss_vae", "db_vae"])
@pytest.mark.parametrize("guide", ["mean_field", "full_rank", "planar", "mixture"])
def test_terms_add_up_to_the_divergence(model, guide, x):
    """The sum of the terms against the bound's own KL, and of the units where they add up: within Monte Carlo noise."""
    pair = make_pair(model, guide)
    probed = pair.probe(x)
    torch.manual_seed(0)
    found = latent_use(probed, x, 4000)
    kl = draw_terms(probed, x, 4000).kl.mean().item()
    assert found.kl == pytest.approx(kl, abs=0.03)
    assert list(found.label_kl) == (["y"] if "y" in probed.enumerated else [])
    for site in found.sites:
        assert site.adds_up is (guide == "mean_field")
        assert (site.unit_kl is None) is (
            guide in ("planar", "mixture") or (guide != "mean_field" and model in ("hvae", "db_vae"))
        )
        if site.adds_up:
            assert site.unit_kl.sum().item() == pytest.approx(site.kl, abs=0.03)


def test_active_units_are_those_of_the_evaluation(x):
    pair = make_pair("vae")
    probed = pair.probe(x)
    with torch.no_grad():
        pair.guide.conditionals["z"].family.loc.weight[0] *= 3
    found = latent_use(probed, x)
    assert found.num_active == evaluate(probed, Images(x), 4).active_units
    assert found.num_units == 2


def test_a_collapsed_guide_is_reported():
    def guide(x, loc=0.0):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x), 10), loc), 1.0).to_event(1))

    pair, x = Pair(linear_model(), guide), data(100)
    found = latent_use(pair.probe(x), x)
    assert found.collapsed == ("z",)
    assert len(found.inactive) == 10
    assert found.kl == pytest.approx(0, abs=1e-5)
    assert found.warning.startswith("posterior collapse: 0 of the 10 units of 'z' are active and KL is 0.000 nats")
    elsewhere = Pair(linear_model(), lambda x: guide(x, 1.0))
    found = latent_use(elsewhere.probe(x), x)
    assert "though KL is 5.00 nats: the guide says the same for every x" in found.warning
    probed = linear_pair()
    assert latent_use(probed, x).warning == ""
    assert latent_use(probed, x).collapsed == ()


def test_one_active_unit_of_many_is_almost_a_collapse():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 40), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 3], 1.0), obs=x)

    def guide(x):
        loc = torch.zeros(len(x), 40)
        loc[:, 3] = x / 2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    pair, x = Pair(model, guide), torch.randn(200)
    found = latent_use(pair.probe(x), x)
    assert "z[3]" not in found.inactive
    assert found.warning.startswith("almost a posterior collapse: 1 of the 40 units of 'z' is active")
    assert found.as_dict()["sites"]["z"]["active_units"] == 1

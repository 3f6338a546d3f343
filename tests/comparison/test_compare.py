"""Guides against NUTS and the exact posterior: closed forms of the linear-Gaussian model, and integration."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.comparison.compare import compare_mcmc
from pyro_vae.comparison.guide_fits import fit_guide
from pyro_vae.errors import InputError
from pyro_vae.guides import FullRank, MeanField
from pyro_vae.models import Banana, LinearGaussian
from pyro_vae.networks import MLP
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior import Sampling
from pyro_vae.posterior.bridge_sampling import bridge_evidence
from pyro_vae.posterior.mcmc import nuts
from pyro_vae.posterior.target import Target

KEYS = ["method", "mean_error", "sd_ratio", "kl_to_reference", "k_hat", "elbo", "seconds"]


@pytest.fixture(scope="module")
def linear():
    """Ten correlated latents, and far too few draws of NUTS: for tests of the guides against what is exact."""
    sizes = {"num_data": 1, "sampling": Sampling(16, 8, 1), "num_steps": 400}
    return compare_mcmc("linear_gaussian", ("mean_field", "full_rank"), **sizes)


def row(comparison, name):
    return next(row for row in comparison.rows if row["method"] == name)


def test_rows_are_plain_numbers_of_each_method(linear):
    content = json.loads(json.dumps(linear.as_dict()))
    assert [row["method"] for row in content["rows"]] == ["mean_field", "full_rank", "nuts", "exact"]
    assert all(list(row) == KEYS for row in content["rows"])
    assert content["model"] == "linear_gaussian"
    assert content["reference"] == "exact"
    known = row(linear, "exact")
    assert (known["mean_error"], known["sd_ratio"], known["kl_to_reference"]) == (0, 1, 0)


def test_full_rank_is_exact(linear):
    found = row(linear, "full_rank")
    assert found["kl_to_reference"] <= 0.01
    assert found["mean_error"] < 0.05
    assert found["sd_ratio"] == pytest.approx(1, abs=0.05)
    assert found["k_hat"] < 0.5
    assert found["elbo"] == pytest.approx(row(linear, "exact")["elbo"], abs=0.01)


@pytest.mark.slow
def test_nuts_means_are_exact():
    """Within 0.05 standard deviations: at 5,000 effective draws 3.5 standard errors of ten means, missed in 0.5% of
    runs; the draws here are seeded."""
    sizes = {"num_data": 1, "sampling": Sampling(1250, 250), "num_steps": 0}
    linear = compare_mcmc("linear_gaussian", ("mean_field",), **sizes)
    assert linear.chains.is_reference, linear.reasons
    assert row(linear, "nuts")["mean_error"] < 0.05
    assert row(linear, "nuts")["sd_ratio"] == pytest.approx(1, abs=0.06)
    assert row(linear, "nuts")["kl_to_reference"] < 0.05
    assert row(linear, "nuts")["elbo"] is None


def test_mean_field_is_too_narrow_by_the_known_factor(linear):
    """The best diagonal q has the diagonal of the posterior's precision (Bishop 2006, 10.1.2): KL and widths follow."""
    exact = linear.method("exact").covariance[0]
    precision = torch.linalg.inv(exact)
    ratio = 1 / (precision.diagonal() * exact.diagonal()).sqrt()
    assert ratio.min() < 0.75  # correlated enough to tell
    found = row(linear, "mean_field")
    assert found["sd_ratio"] == pytest.approx(ratio.min().item(), rel=0.02)
    assert found["mean_error"] < 0.1
    best = (precision.diagonal().log().sum() + torch.linalg.slogdet(exact)[1]) / 2
    assert found["kl_to_reference"] == pytest.approx(best.item(), rel=0.02)
    assert linear.correlation_errors["mean_field"] == pytest.approx(
        (linear.method("exact").correlation[0] - torch.eye(10)).abs().max().item()
    )


def test_the_elbo_falls_short_of_the_evidence_by_the_divergence(linear):
    """The ELBO is the mean of 10,000 log weights: within 5 standard errors."""
    method = linear.method("mean_field")
    gap = linear.method("exact").elbo - method.elbo
    assert gap.item() == pytest.approx(method.kl.item(), abs=5 * (2 * method.kl.item() / 10_000) ** 0.5)


def test_the_exact_elbo_is_the_evidence(linear):
    torch.manual_seed(0)
    model = LinearGaussian((4,), latent_dim=2)
    x = torch.randn(3, 4)
    found = compare_mcmc(model, ("mean_field",), x, sampling=Sampling(4, 4, 1), num_steps=1)
    with torch.no_grad():
        torch.testing.assert_close(found.method("exact").elbo, model.evidence(x).double(), atol=1e-5, rtol=1e-5)


def banana_posterior(found):
    """The mean, standard deviations and evidence of every datum, by integration over a grid."""
    points = torch.linspace(-6, 6, 601)
    grid = torch.cartesian_prod(points, points)
    with torch.no_grad():
        value = found.log_density(grid[:, None].expand(-1, found.num_data, 2)).double()
    weight = value.softmax(0).unsqueeze(-1)
    mean = (weight * grid[:, None]).sum(0)
    evidence = value.logsumexp(0) + 2 * torch.log(points[1] - points[0])
    return mean, (weight * (grid[:, None] - mean).square()).sum(0).sqrt(), evidence


def silent(model):
    """The same program, which does not state its posterior."""

    def program(x):
        return model(x)

    return program


@pytest.mark.slow
def test_nuts_is_the_reference_where_nothing_is_exact():
    """A bent posterior: divergences from NUTS's draws by bridge sampling against integration, to 0.05 nats."""
    torch.manual_seed(0)
    model = Banana((3,), bend=0.5, scale=1.0)
    x = torch.tensor([[0.3, -0.2, 0.1]])
    guides = {"full_rank": FullRank(model)}
    found = compare_mcmc(silent(model), guides, x, sampling=Sampling(400, 150), num_steps=300)
    assert found.reference == "nuts", found.reasons
    pair = Pair(model, FullRank(model))
    mean, stddev, evidence = banana_posterior(Target(pair.probe(x), x))
    method = found.method("full_rank")
    assert method.kl.item() == pytest.approx((evidence - method.elbo).item(), abs=0.05)
    assert ((found.method("nuts").mean - mean).abs() < 5 * stddev / found.chains.ess.sqrt()).all()
    assert found.rows[-1]["kl_to_reference"] == 0


def test_nuts_that_has_not_mixed_is_no_reference():
    torch.manual_seed(0)
    model = Banana((3,))
    sizes = {"sampling": Sampling(8, 8, 2), "num_steps": 5}
    found = compare_mcmc(silent(model), {"mean_field": MeanField(model)}, torch.zeros(1, 3), **sizes)
    assert found.reference is None
    assert found.reasons
    for figures in found.rows:
        assert figures["mean_error"] is figures["sd_ratio"] is figures["kl_to_reference"] is None
    assert found.rows[0]["elbo"] is not None
    assert found.correlation_errors == {"mean_field": None, "nuts": None}
    assert found.table()[0]["sd ratio"] == "-"


def test_a_stated_posterior_judges_chains_that_have_not_mixed():
    """Two arms 3.5 apart: every chain stays in its own, and its figures are the worse for it."""
    torch.manual_seed(0)
    model = Banana((3,), scale=0.1)
    with torch.no_grad():
        x = model.decoder(torch.tensor([[2.0]]))
    sizes = {"sampling": Sampling(8, 8, 2), "num_steps": 5}
    found = compare_mcmc(model, ("mean_field",), x, **sizes)
    assert found.reference == "exact"
    assert found.reasons
    known = found.method("exact")
    torch.testing.assert_close(known.mean, model.posterior(x).mean.double())
    torch.testing.assert_close(known.covariance, model.posterior(x).covariance_matrix.double())
    torch.testing.assert_close(known.elbo, model.evidence(x).double().detach(), atol=1e-3, rtol=0)
    guided = found.method("mean_field")
    assert guided.kl.item() == pytest.approx((known.elbo - guided.elbo).item())
    assert row(found, "nuts")["mean_error"] > 0.1


@pytest.mark.exhaustive
def test_bridge_sampling_finds_the_evidence():
    """Three data of a linear-Gaussian model, to 0.05 nats, about 5 standard errors."""
    torch.manual_seed(2)
    model = LinearGaussian((6,), latent_dim=4)
    x = torch.randn(3, 6)
    pair = Pair(model, FullRank(model))
    target = Target(pair.probe(x), x)
    chains = nuts(target, 200, 150, 3)
    torch.testing.assert_close(bridge_evidence(target, chains), model.evidence(x).double().detach(), atol=0.05, rtol=0)


def test_only_the_guide_trains(x):
    torch.manual_seed(0)
    model = LinearGaussian((4,), latent_dim=2)
    pair = Pair(model, FullRank(model, network=MLP(hidden=(8,))))
    data = torch.randn(3, 4)
    probed = pair.probe(data)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    fit_guide(probed, data, 3)
    after = pair.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("guide.")}


@pytest.mark.exhaustive
def test_programs_of_ones_own_and_parameters_without_a_module():
    """A normal guide with bare parameters on x ~ N(z, 1), z ~ N(0, 1): the posterior is N(x / 2, 1/2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(2))
        log_scale = pyro.param("log_scale", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    x = torch.tensor([1.0, -2.0])
    found = compare_mcmc(model, {"mine": guide}, x, sampling=Sampling(250, 50), num_steps=1200)
    assert found.model == "model"
    assert found.reference == "nuts", found.reasons
    torch.testing.assert_close(found.method("mine").mean[:, 0], x.double() / 2, atol=0.04, rtol=0)
    assert found.method("mine").kl.abs().max() < 0.05
    assert (found.method("mine").stddev[:, 0] - 0.5**0.5).abs().max() < 0.04


@pytest.mark.exhaustive
def test_latents_shared_by_all_data_are_one_posterior():
    """Weights w ~ N(0, I) of a regression y ~ N(Xw, 1): the posterior is normal, with precision I + X'X."""
    torch.manual_seed(0)
    features = torch.randn(20, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    y = features @ torch.tensor([1.0, -0.5]) + torch.randn(20)
    precision = torch.eye(2) + features.t() @ features
    exact = dist.MultivariateNormal(torch.linalg.solve(precision, features.t() @ y), precision_matrix=precision)

    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal((w * features).sum(-1), 1.0), obs=y)

    def right(y):
        pyro.sample("w", exact)

    def wide(y):
        pyro.sample("w", dist.Normal(exact.mean, 2 * exact.stddev).to_event(1))

    found = compare_mcmc(model, {"right": right, "wide": wide}, y, sampling=Sampling(450, 60, 2), num_steps=0)
    assert found.reference == "nuts", found.reasons
    assert found.method("nuts").mean.shape == (1, 2)
    rows = {row["method"]: row for row in found.rows}
    assert rows["right"]["mean_error"] < 0.2  # of 400 effective draws, four standard errors
    assert rows["right"]["kl_to_reference"] == pytest.approx(0, abs=0.02)
    assert rows["right"]["k_hat"] == 0  # its weights are equal to rounding
    assert rows["wide"]["sd_ratio"] == pytest.approx(2, rel=0.15)
    assert rows["wide"]["kl_to_reference"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "linear_gausian"}, "did you mean 'linear_gaussian'"),
        ({"guides": ("full_rnk",)}, "did you mean 'full_rank'"),
        ({"guides": ()}, "at least one guide; got none"),
        ({"num_data": 0}, "num_data of at least 1"),
        ({"latent_dim": 0}, "latent_dim of at least 1"),
        ({"num_steps": -1}, "num_steps of at least 0"),
        ({"model": lambda x: None}, "data for a program of your own"),
        ({"model": lambda x: None, "x": torch.zeros(1)}, "guide programs for a model program"),
    ],
)
def test_bad_input_is_refused_before_anything_is_fitted(arguments, message):
    with pytest.raises(InputError, match=message):
        compare_mcmc(**arguments)


@pytest.mark.parametrize(
    ("sizes", "message"), [((3,), "at least 4 draws per chain; got 3"), ((4, 0), "warm-up"), ((4, 1, 0), "one chain")]
)
def test_chains_with_nothing_in_them_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        Sampling(*sizes)

"""The posterior as one flat density: against closed forms, traces run by hand, and integration."""

import math

import numpy
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

from pyro_vae.errors import InputError
from pyro_vae.guides import FullRank, MeanField
from pyro_vae.models import HVAE, SSVAE, VAE, LinearGaussian
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior.target import Target
from pyro_vae.priors import PRIORS
from pyro_vae.runs.display import listening

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # Rubin, 1981
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def target(model, guide, x, y=None):
    torch.manual_seed(0)
    pair = Pair(model, guide)
    probed = pair.probe(x, y)
    pair.train(False)
    return Target(probed, x, y)


def joint(model, values, *arguments):
    """Log p(x, z, …) of one set of values, summed over nothing but the sites, by a trace run by hand."""
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*arguments)
    trace.compute_log_prob()
    return sum(trace.nodes[name]["log_prob"] for name in (*trace.stochastic_nodes, *trace.observation_nodes))


def eight_schools(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("x", dist.Normal(theta, ERRORS), obs=x)


@pytest.fixture
def linear():
    torch.manual_seed(1)
    model = LinearGaussian((5,), latent_dim=3)
    return target(model, FullRank(model), torch.randn(4, 5))


@pytest.fixture
def labelled():
    torch.manual_seed(1)
    model = SSVAE((5,), num_classes=3, latent_dim=2)
    return target(model, MeanField(model), torch.rand(4, 5).round())


def test_density_is_posterior_times_evidence(linear):
    u = torch.randn(7, 4, 3)
    model = linear.pair.model
    exact = model.posterior(linear.x).log_prob(u) + model.evidence(linear.x)
    assert torch.allclose(linear.log_density(u), exact, atol=1e-5)


def test_temperature_leads_from_the_prior(linear):
    u = torch.randn(7, 4, 3)
    prior = dist.Normal(0.0, 1.0).log_prob(u).sum(-1)
    one, half = linear.log_density(u), linear.log_density(u, 0.5)
    assert torch.allclose(linear.log_density(u, 0.0), prior, atol=1e-5)
    assert torch.allclose(half, (prior + one) / 2, atol=1e-5)
    each = torch.tensor([0.0, 1.0, 0.5, 0.5]).expand(7, 4)
    assert torch.allclose(linear.log_density(u, each)[:, 0], prior[:, 0], atol=1e-5)
    assert torch.allclose(linear.log_density(u, each)[:, 1], one[:, 1], atol=1e-5)


def test_gradient_is_that_of_finite_differences():
    zero = torch.zeros((), dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=zero.expand(3)))
            z = pyro.sample("z", dist.Gamma(2.0 + zero, 1.0))
            pyro.sample("x", dist.Normal(y * z.sin(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=zero.expand(3)), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.LogNormal(zero, 1.0))

    found = target(model, guide, torch.randn(4, dtype=torch.float64))
    u = torch.randn(2, 4, 1, dtype=torch.float64)
    _, gradient = found.value_and_gradient(u)
    step = 1e-5
    slope = (found.log_density(u + step) - found.log_density(u - step)) / (2 * step)
    assert torch.allclose(gradient[..., 0], slope, atol=1e-7)


@torch.no_grad()
def test_labels_are_summed_out(labelled):
    u = torch.randn(7, 4, 2)
    found = labelled.log_density(u)
    for s in range(7):
        terms = [joint(labelled.pair.model, {"z": u[s]}, labelled.x, torch.full((4,), y)) for y in range(3)]
        assert torch.allclose(found[s], torch.stack(terms).logsumexp(0), atol=1e-5)


@torch.no_grad()
def test_given_labels_are_not_summed_out():
    torch.manual_seed(1)
    model = SSVAE((5,), num_classes=3, latent_dim=2)
    y = torch.tensor([0, 1, 2, 0])
    given = target(model, MeanField(model), torch.rand(4, 5).round(), y)
    u = torch.randn(1, 4, 2)
    assert torch.allclose(given.log_density(u)[0], joint(model, {"z": u[0]}, given.x, y), atol=1e-5)


@torch.no_grad()
def test_drawn_labels_and_latents_have_their_joint_weight(labelled):
    draws = labelled.draw(6)
    for s in range(6):
        values = {"z": draws.u[s], "y": draws.enumerated["y"][s]}
        p = joint(labelled.pair.model, {"z": draws.u[s]}, labelled.x, draws.enumerated["y"][s])
        q = joint(labelled.pair.guide, values, labelled.x)
        assert torch.allclose(draws.log_weight[s], p - q, atol=1e-5)


def test_labels_are_drawn_from_the_guide(labelled):
    """Frequencies of 4,000 draws: within 5 standard errors, missed about once in a million runs."""
    drawn = labelled.draw(4000).enumerated["y"]
    q = labelled.pair.guide.conditionals["y"](labelled.x).probs
    shares = torch.stack([(drawn == y).double().mean(0) for y in range(3)], -1)
    assert ((shares - q).abs() < 5 * (q * (1 - q) / 4000).sqrt()).all()


def test_both_weights_estimate_the_evidence(labelled):
    """Means of 20,000 weights of a labelled model agree within 5 joint standard errors."""
    draws = labelled.draw(20_000)
    one, other = draws.log_weight.double().exp(), draws.log_evidence_weight.double().exp()
    error = ((one.var(0) + other.var(0)) / 20_000).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < 5 * error).all()


def test_weights_without_labels_are_those_of_the_density(linear):
    draws = linear.draw(6)
    q = linear.pair.guide.posterior(linear.x).log_prob(draws.u)
    assert torch.equal(draws.log_weight, draws.log_evidence_weight)
    assert torch.allclose(draws.log_weight, linear.log_density(draws.u) - q, atol=1e-5)


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_a_program_with_global_latents_is_one_datum(family):
    schools = target(eight_schools, family(eight_schools), EFFECTS)
    assert (schools.num_data, schools.size) == (1, 10)
    assert schools.names[:3] == ("mu", "tau", "theta[0]")
    draws = schools.draw(3)
    values = schools.values(draws.u)
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        "mu": (3, 1),
        "tau": (3, 1),
        "theta": (3, 1, 8),
    }
    log_tau = draws.u[:, 0, 1]
    assert torch.allclose(values["tau"][:, 0], log_tau.exp())
    for s in range(3):
        by_hand = poutine.trace(poutine.condition(eight_schools, {n: v[s, 0] for n, v in values.items()}))
        expected = by_hand.get_trace(EFFECTS).log_prob_sum() + log_tau[s]  # d tau / d log tau = tau
        assert torch.allclose(schools.log_density(draws.u)[s, 0], expected, atol=1e-4)


def test_the_constrained_density_integrates_to_the_evidence():
    """A positive latent, by a sum over a fine grid of its logarithm, against a sum over the latent itself."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            return pyro.sample("x", dist.Exponential(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal(torch.zeros(len(x)), 1.0))

    found = target(model, guide, torch.tensor([0.5, 3.0]))
    u = torch.linspace(-12, 6, 4001)
    total = found.log_density(u[:, None, None].expand(-1, 2, 1)).logsumexp(0) + math.log(18 / 4000)
    exact = torch.log(2 / (1 + found.x) ** 3)  # integral of r e^{-r} r e^{-r x}: a Lomax density
    assert torch.allclose(total, exact, atol=1e-4)


def test_priors_are_drawn_from_the_model(linear):
    """Mean and variance of 4,000 draws: within 5 standard errors each."""
    u = linear.draw_prior(4000)
    assert u.shape == (4000, 4, 3)
    assert (u.mean(0).abs() < 5 / math.sqrt(4000)).all()
    assert ((u.var(0) - 1).abs() < 5 * math.sqrt(2 / 4000)).all()


def test_hierarchies_are_one_vector():
    torch.manual_seed(1)
    model = HVAE((5,), latent_dim=2)
    found = target(model, MeanField(model), torch.rand(4, 5).round())
    assert found.names == ("z1[0]", "z1[1]", "z2[0]", "z2[1]")
    u = torch.randn(1, 4, 4)
    with torch.no_grad():
        by_hand = joint(model, {"z1": u[0, :, :2], "z2": u[0, :, 2:]}, found.x)
        assert torch.allclose(found.log_density(u)[0], by_hand, atol=1e-5)


@pytest.mark.parametrize("prior", ["mixture", "flow"])
def test_priors_of_other_kinds_have_a_density(prior):
    torch.manual_seed(1)
    model = VAE((5,), latent_dim=2, prior=PRIORS.build(prior, latent_dim=2))
    found = target(model, MeanField(model), torch.rand(4, 5).round())
    u = torch.randn(1, 4, 2)
    with torch.no_grad():
        by_hand = model.prior().log_prob(u[0]) + model.likelihood(model.decoder(u[0])).log_prob(found.x)
        assert torch.allclose(found.log_density(u)[0], by_hand, atol=1e-5)


@pytest.mark.usefixtures("graph")
def test_compiled_values_are_the_eager_ones(labelled):
    u, half = torch.randn(3, 4, 2), torch.tensor(0.5)
    notes = []
    with listening(notes.append):
        run = labelled.compiled(3, 10**6)
    assert notes[0].startswith("compiling the posterior")
    for found, expected in zip(run(u, half), labelled.value_and_gradient(u, half), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_have_the_posterior_that_they_have_among_all(labelled):
    y = torch.tensor([0, 2, 1, 0])
    known = Target(labelled.pair.probe(labelled.x, y), labelled.x, y)
    u = torch.randn(5, 4, 2)
    whole, given = labelled.log_density(u), known.log_density(u)
    mask = torch.tensor([True, False, False, True])
    for rows in (slice(1, 3), torch.tensor([3, 0, 3]), mask):
        assert torch.allclose(labelled[rows].log_density(u[:, rows]), whole[:, rows])
        assert torch.allclose(known[rows].log_density(u[:, rows]), given[:, rows])
    assert torch.allclose(labelled[-1].log_density(u[:, 3:]), whole[:, 3:])
    assert [len(row.x) for row in labelled] == [1, 1, 1, 1]
    assert labelled.first(2).x.equal(labelled.x[:2])


def test_looking_at_a_target_moves_no_running_mean():
    model = VAE((4,), latent_dim=2)
    guide = MeanField(model)
    guide.conditionals["z"].encoder = nn.Sequential(nn.BatchNorm1d(4), guide.conditionals["z"].encoder)
    pair, x = Pair(model, guide), torch.rand(5, 4).round()
    probed = pair.probe(x)
    pair.train(True)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    assert Target(probed, x).names == ("z[0]", "z[1]")
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    assert pair.guide.training


def test_a_posterior_of_all_rows_together_has_no_rows():
    pyro.clear_param_store()
    pair = Pair(eight_schools, AutoNormal(eight_schools))
    found = Target(pair.probe(EFFECTS), EFFECTS)
    assert found.first(1) is found
    with pytest.raises(InputError, match="one for all of them together; take the target as it is"):
        found[:4]


def test_a_target_runs_nothing_until_it_is_asked(linear):
    names, calls = linear.names, []
    linear.pair.guide.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    whole = Target(linear.probed, torch.randn(1000, 5))
    assert calls == []
    assert whole[:3].names == names
    assert set(calls) == {3}


def test_few_runs_are_eager(labelled):
    notes = []
    with listening(notes.append):
        assert labelled.compiled(3, 10) == labelled.value_and_gradient
    assert "eagerly" in notes[0]


def test_looking_leaves_the_noise_alone(linear):
    torch.manual_seed(3)
    linear.log_density(torch.zeros(2, 4, 3))
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(()))


def test_a_sampled_discrete_site_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            count = pyro.sample("count", dist.Poisson(3.0))
            return pyro.sample("x", dist.Normal(count, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("count", dist.Poisson(x.abs() + 1))

    with pytest.raises(InputError, match=r"discrete site 'count'.*enumerate"):
        target(model, guide, torch.randn(3)).draw(1)


def regression(x):
    """Written for one draw at a time: ``x @ weights`` takes a single vector."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x[:, :2] @ weights, scale), obs=x[:, 2])


def test_a_program_for_one_draw_at_a_time_is_run_so():
    torch.manual_seed(2)
    x = torch.randn(9, 3)
    found = target(regression, AutoNormal(regression), x)
    assert not found.side_by_side
    draws = found.draw(4)
    assert draws.u.shape == (4, 1, 3)
    assert len({tuple(u) for u in draws.u[:, 0].tolist()}) == 4
    values = found.values(draws.u)
    for s in range(4):
        by_hand = poutine.trace(poutine.condition(regression, {n: v[s, 0] for n, v in values.items()}))
        expected = by_hand.get_trace(x).log_prob_sum() + draws.u[s, 0, 2]
        assert torch.allclose(found.log_density(draws.u)[s, 0], expected, atol=1e-4)
    half = found.log_density(draws.u, torch.tensor(0.5))
    assert torch.allclose(half[:1], found.log_density(draws.u[:1], 0.5))
    assert found.draw_prior(5).shape == (5, 1, 3)


def test_a_program_that_mixes_its_dimensions_up_is_run_one_draw_at_a_time():
    """Side by side, a sum over all of a site's values would be one over the draws too."""

    def model(x):
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = target(model, guide, torch.tensor(1.0))
    assert not found.side_by_side
    u = torch.randn(2, 1, 3)
    prior = dist.Normal(0.0, 1.0).log_prob(u).sum((-1, -2))
    likelihood = dist.Normal(u.sum((-1, -2)), 1.0).log_prob(found.x)
    assert torch.allclose(found.log_density(u)[:, 0], prior + likelihood, atol=1e-5)


def test_vectorized_programs_are_run_side_by_side(linear):
    assert linear.side_by_side
    assert target(eight_schools, AutoNormal(eight_schools), EFFECTS).side_by_side


def test_labels_of_rows_that_the_guide_enumerates_beside_shared_latents_are_refused():
    """All rows are one datum then, and the sum over their labels would be one over labels that all rows share."""

    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(loc * k, 1.0), obs=x)

    def guide(x):
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    x = torch.randn(5)
    with pytest.raises(InputError, match=r"got the site 'k', which the guide enumerates; mark it in the model"):
        Target(Pair(model, guide).probe(x), x).draw(3)
    draws = Target(Pair(pyro.infer.config_enumerate(model), poutine.block(guide, hide=["k"])).probe(x), x).draw(10)
    loc = draws.u[:, 0]
    rows = torch.stack([dist.Normal(torch.zeros(10, 1), 1.0).log_prob(x), dist.Normal(loc, 1.0).log_prob(x)])
    mixed = (rows.logsumexp(0) - math.log(2)).sum(1)
    exact = mixed + dist.Normal(0.0, 3.0).log_prob(loc[:, 0]) - dist.Normal(0.0, 1.0).log_prob(loc[:, 0])
    torch.testing.assert_close(draws.log_weight[:, 0], exact)


@pytest.mark.parametrize("name", ["draw", "draw_prior"])
def test_draws_made_one_at_a_time_are_replayed_to_the_bit(name):
    calls = []

    def counted(x):
        calls.append(x)
        regression(x)

    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(2))
    found = target(counted, AutoNormal(counted), x)
    found.draw(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        one_by_one = [getattr(found, name)(1) for _ in range(60)]
        noise = torch.get_rng_state()
    u = [one if name == "draw_prior" else one.u for one in one_by_one]
    for begun in (x, x + 1):  # other data of that shape, for which the recording serves, too
        another = Target(found.probed, begun)
        another.draw(1)
        calls.clear()
        torch.manual_seed(5)
        together = getattr(another, name)(60)
        assert len(calls) < 10
        assert torch.equal(torch.get_rng_state(), noise)
        assert torch.equal(together if name == "draw_prior" else together.u, torch.cat(u))
        torch.manual_seed(5)
        alone = [another.draw(1).log_weight for _ in range(60)]
        if name == "draw":
            assert torch.equal(together.log_weight, torch.cat(alone))


def test_a_trained_guide_is_seen_by_what_was_recorded_of_it():
    found = target(regression, guide := AutoNormal(regression), torch.randn(9, 3))
    found.draw(60)
    with found.pair.scope(), torch.no_grad():
        guide.locs.weights.fill_(100.0)
    assert (found.draw(60).u[:, 0, :2] > 90).all()


def test_noise_that_is_not_torch_s_is_not_replayed():
    random = numpy.random.default_rng(0)

    def shifted(x):
        pyro.sample("mean", dist.Normal(float(random.normal()), 0.001))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[:, 0])

    def guide(x):
        pyro.sample("mean", dist.Normal(float(random.normal()), 0.001))

    found = target(shifted, guide, torch.randn(9, 3))
    found.pair.draws_lie[False] = "alone"
    for u in (found.draw(100).u, found.draw_prior(100)):
        assert u.std() > 0.5


def test_several_draws_of_one_at_a_time_have_the_gradient_of_each():
    found = target(regression, AutoNormal(regression), torch.randn(9, 3))
    u, half = found.draw(3).u, torch.tensor(0.5)
    value, gradient = found.compiled(3, 1000)(u, half)
    expected = found.value_and_gradient(u, 0.5)
    assert torch.allclose(value, expected[0], rtol=1e-6)
    assert torch.allclose(gradient, expected[1], rtol=1e-5, atol=1e-5)


def test_joint_densities_of_one_draw_at_a_time_are_those_of_eager_runs():
    x, calls = torch.randn(9, 3), []

    def model(x):
        calls.append(x)
        return regression(x)

    found = target(model, AutoNormal(regression), x)
    u = torch.randn(60, 1, found.size)
    eager = found.log_density(u, 0.5)  # with gradients, which no recording gives
    for begun in (x, x + 1):
        another = Target(found.probed, begun)
        calls.clear()
        with torch.no_grad():
            together = another.log_density(u, 0.5)
        assert len(calls) < 20
        alone = torch.cat([another.log_density(one, 0.5) for one in u.split(1)])
        torch.testing.assert_close(together, alone.detach(), rtol=0, atol=0)
        assert begun is not x or torch.equal(together, eager)

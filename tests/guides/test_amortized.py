"""A guide by name for any program, against closed forms and enumeration."""

from __future__ import annotations

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch.distributions import kl_divergence

from pyro_vae.compiled import CompiledTrace_ELBO
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES, amortize
from pyro_vae.models import VAE
from pyro_vae.networks import MLP
from pyro_vae.pairs import Pair, draw
from tests.guides.programs import PROGRAMS, ROWS, WEIGHTS, clusters, linear, normal

SMALL = MLP(hidden=(16,))


def make(name: str, family: str = "mean_field", **options):
    program = PROGRAMS[name]
    torch.manual_seed(0)
    return program.model, amortize(program.model, family, program.arguments(), network=SMALL, **options)


def train(model, guide, *args, steps=1500, lr=0.01, elbo=None):
    pyro.clear_param_store()
    torch.manual_seed(0)
    optimizer = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.01 ** (1 / steps)})
    svi = SVI(model, guide, optimizer, elbo or Trace_ELBO(num_particles=8, vectorize_particles=True))
    for _ in range(steps):
        svi.step(*args)


def takes(family: str, program: str) -> bool:
    """Mixtures and planar flows want at least two dimensions."""
    return family not in ("mixture", "planar") or not PROGRAMS[program].one_number


QUICK = ("linear", "answers", "switch")  # every family on these, and one family on all others


@pytest.mark.parametrize(
    ("name", "family"),
    [
        pytest.param(name, family, marks=() if name in QUICK or family == "mean_field" else pytest.mark.exhaustive)
        for name in PROGRAMS
        for family in GUIDES
    ],
)
def test_every_family_makes_a_guide_for_every_program(name, family):
    """It has the model's sites, and the ELBO and its gradients are those of a pair of programs."""
    if not takes(family, name):
        with pytest.raises(InputError, match="sites of at least 2 numbers in a row"):
            make(name, family)
        return
    model, guide = make(name, family)
    args = PROGRAMS[name].arguments(ROWS + 2)
    pyro.clear_param_store()
    probed = Pair(model, guide).probe(args[0]) if len(args) == 1 else None
    if probed is not None:
        p = pyro.poutine.trace(model).get_trace(*args)
        assert {*probed.latent} == {
            n for n in p.stochastic_nodes if not pyro.poutine.util.site_is_subsample(p.nodes[n])
        }
    for _ in range(2):
        loss = TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False).loss_and_grads(model, guide, *args)
        assert math.isfinite(loss)
    assert all(p.grad is not None for p in guide.parameters())


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_of_a_guide_are_on_the_supports_and_have_a_density(name):
    model, guide = make(name)
    args = PROGRAMS[name].arguments()
    with pyro.validation_enabled(True):
        q = pyro.poutine.trace(guide).get_trace(*args)
        p = pyro.poutine.trace(pyro.poutine.replay(model, q)).get_trace(*args)
        q.compute_log_prob()
        p.compute_log_prob()
    for site in q.stochastic_nodes:
        assert q.nodes[site]["value"].shape == p.nodes[site]["value"].shape
        fresh = q.nodes[site]["fn"].log_prob(q.nodes[site]["value"].clone())  # not the draw by identity
        torch.testing.assert_close(fresh, q.nodes[site]["log_prob"], rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_full_rank_reaches_the_posterior_of_a_linear_gaussian():
    x = normal(200)
    torch.manual_seed(0)
    guide = amortize(linear, "full_rank", x, network=MLP(hidden=(64,)))
    train(linear, guide, x, steps=800)
    precision = torch.eye(2) + WEIGHTS @ WEIGHTS.T / 0.25
    exact = dist.MultivariateNormal(x @ WEIGHTS.T / 0.25 @ precision.inverse(), precision_matrix=precision)
    divergence = kl_divergence(guide.posterior(x)["z"], exact)
    assert divergence.mean() < 0.01


@pytest.mark.exhaustive
def test_a_positive_site_has_the_gamma_posterior():
    model, x = PROGRAMS["counts"].model, PROGRAMS["counts"].data(300)
    torch.manual_seed(0)
    guide = amortize(model, "mean_field", x, network=SMALL)
    train(model, guide, x, steps=800)
    draws = guide.posterior(x)["rate"].sample((4000,))
    exact = dist.Gamma(2.0 + x.sum(1), 5.0)
    assert ((draws.mean(0) - exact.mean).abs() < 0.1 * exact.stddev).float().mean() > 0.95
    assert (draws.std(0) / exact.stddev - 1).abs().mean() < 0.1


@pytest.mark.slow
def test_local_and_shared_sites_together():
    """Group effects given mean and spread; their posterior under mean and spread fixed is normal."""
    model = PROGRAMS["groups"].model
    torch.manual_seed(0)
    x = 3.0 + 2.0 * torch.randn(400, 4)
    guide = amortize(model, "mean_field", x, network=SMALL)
    train(model, guide, x, steps=2000)
    draws = {name: q.sample((4000,)) for name, q in guide.posterior(x).items() if name != "effect"}
    marginal = (x[:, 0].var() - 1.0).sqrt()
    assert draws["mean"].mean() == pytest.approx(x[:, 0].mean().item(), abs=0.1)
    assert draws["spread"].mean() == pytest.approx(marginal.item(), abs=0.15)
    shrinkage = draws["spread"].mean() ** 2 / (draws["spread"].mean() ** 2 + 1)
    expected = x[:, 0].mean() + shrinkage * (x[:, 0] - x[:, 0].mean())
    effect = guide.posterior(x)["effect"]
    assert (effect.sample((2000,)).mean(0) - expected).abs().mean() < 0.1
    assert effect.sample((2000,)).std(0).mean() == pytest.approx(shrinkage.sqrt().item(), rel=0.1)


@pytest.mark.exhaustive
def test_enumerated_sites_have_the_exact_responsibilities():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(60, 4) - 4, torch.randn(60, 4), torch.randn(60, 4) + 4])
    fixed = pyro.poutine.condition(clusters, data={"locs": torch.tensor([-4.0, 0.0, 4.0])})
    guide = amortize(fixed, "mean_field", x, network=MLP(hidden=(64,)))
    train(fixed, guide, x, steps=300, elbo=TraceEnum_ELBO(max_plate_nesting=1))
    exact = dist.Normal(torch.tensor([-4.0, 0.0, 4.0]), 1.0).log_prob(x[:, :1]).softmax(-1)
    assert (guide.posterior(x)["k"].probs - exact).abs().mean() < 0.02


def test_a_label_that_is_given_is_observed():
    model, guide = make("labelled")
    x, y = normal(), torch.arange(ROWS) % 2
    trace = pyro.poutine.trace(guide).get_trace(x, y)
    assert "y" not in trace.nodes
    assert "y" in pyro.poutine.trace(guide).get_trace(x).nodes
    assert math.isfinite(Trace_ELBO().loss(model, guide, x, y))


def test_minibatches_and_particles():
    model, guide = make("groups", "iaf")
    for rows in (3, ROWS, 20):
        for particles in (1, 5):
            elbo = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
            assert math.isfinite(elbo.loss_and_grads(model, guide, normal(rows)))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["linear", "groups", "counts", "answers", "explained"])
def test_a_guide_by_name_is_recorded(name):
    model, guide = make(name)
    args, found = PROGRAMS[name].arguments(), []
    for elbo in (Trace_ELBO(), compiled := CompiledTrace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        found.append([elbo.loss_and_grads(model, guide, *args) for _ in range(5)])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert compiled.num_graphs(model, guide) == 1


def test_a_plate_that_is_subsampled_by_hand_keeps_its_scale():
    def model(x):
        with pyro.plate("data", 100, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHTS, 0.5).to_event(1), obs=x)

    guide = amortize(model, "mean_field", normal(10), network=SMALL)
    trace = pyro.poutine.trace(guide).get_trace(normal(5))
    assert trace.nodes["z"]["scale"] == 20


def test_a_model_of_the_package_has_its_own_guide():
    model = VAE((4,), latent_dim=2)
    assert type(amortize(model, "iaf", normal())) is GUIDES["iaf"]


def test_shared_sites_are_seen_unless_told_otherwise():
    _, blind = make("groups", sees_shared=False)
    _, seeing = make("groups")
    assert sum(p.numel() for p in seeing.parameters()) > sum(p.numel() for p in blind.parameters())


def no_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(2), obs=x[:, :1])


def two_plates(x):
    with pyro.plate("left", len(x), dim=-1):
        pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("right", len(x), dim=-2):
        pyro.sample("b", dist.Normal(0.0, 1.0))


def no_data():
    with pyro.plate("data", 5):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(5))


def shared_label(x):
    k = pyro.sample("k", dist.Bernoulli(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 0])


def at_random(x):
    with pyro.plate("data", len(x), subsample_size=3) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows, 0])


def direction(x):
    axis = pyro.sample("axis", dist.ProjectedNormal(torch.ones(4)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(axis, 1.0).to_event(1), obs=x)


def improper(x):
    spread = pyro.sample("spread", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, spread), obs=x[:, 0])


def nothing(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (no_plate, r"expected a plate over the rows around every site that each row has; got the site 'z'"),
        (two_plates, r"expected one plate over the 7 rows of data; got left and right; say which: data_plate='left'"),
        (shared_label, r"got the discrete site 'k', which all rows share; sum it out in the model"),
        (at_random, r"one that draws 3 of 7 at random in the plate 'data'"),
        (
            direction,
            r"the site 'axis', whose support is Sphere.*; sample what it is made of, scales and",
        ),
        (improper, r"ImproperUniform does not support sampling; give the site a proper prior, a wide one where"),
        (nothing, r"expected a model with a latent site; got one that samples nothing"),
    ],
)
def test_what_no_guide_can_be_made_for_is_said(model, message):
    with pytest.raises(InputError, match=message):
        amortize(model, "mean_field", normal())


def test_a_network_that_bears_no_further_dimension_sees_nothing_enumerated():
    """Batch normalization takes (N, D): a label that it need not know is visited after what it reads."""
    network = torch.nn.BatchNorm1d(4)

    def model(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=torch.zeros(3)))
            z = pyro.sample("z", dist.Normal(y.unsqueeze(-1) + torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    guide = amortize(model, "mean_field", normal(), network=SMALL)
    assert network.training
    assert torch.equal(network.running_mean, torch.zeros(4))  # what it makes of draws of the prior is not learned
    assert list(guide.posterior(normal())) == ["z", "y"]
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    assert elbo.differentiable_loss(model, guide, normal()).isfinite()


def test_a_model_that_is_called_without_data_is_refused():
    with pytest.raises(InputError, match="expected a model that is called with its data, for an encoder to see"):
        amortize(no_data, "mean_field", (), data_plate="data")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("x", "expected an example of the data, a tensor of some rows; got x: str; give the data, or a part of them"),
        (None, "got x: NoneType"),
        (np.zeros(5), r"got x: ndarray; give torch.as_tensor\(x\)"),
    ],
)
def test_an_example_without_a_tensor_is_refused(example, message):
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    with pytest.raises(InputError, match=message):
        amortize(model, "mean_field", example)


def test_a_plate_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"expected a plate 'row' in the model; got the plates rows; give one of them"):
        amortize(linear, "mean_field", normal(), data_plate="row")


def test_arguments_in_dictionaries_and_whole_numbers():
    def model(batch):
        x, group = batch["x"], batch["group"]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(group.float(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    batch = {"x": torch.randn(6), "group": torch.arange(6)}
    guide = amortize(model, "mean_field", batch, network=SMALL)
    assert math.isfinite(Trace_ELBO().loss(model, guide, batch))


def words(counts):
    """Documents in columns, as Pyro's example has them."""
    with pyro.plate("documents", counts.shape[1]):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("places", len(counts), dim=-2):
            pyro.sample("counts", dist.Poisson(3 * shares[..., 0]), obs=counts)


def columns(counts):
    with pyro.plate("documents", counts.shape[1]):
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        pyro.sample("counts", dist.Poisson(rate).expand([counts.shape[1]]), obs=counts[0])


@pytest.mark.parametrize(("model", "options"), [(words, {"data_plate": "documents"}), (words, {}), (columns, {})])
def test_rows_in_another_dimension(model, options):
    """By the name of the plate, or by its size where no plate around a latent goes over the first dimension."""
    counts = torch.poisson(torch.full((4, 9), 2.0))
    guide = amortize(model, "mean_field", counts, network=SMALL, **options)
    assert guide.inputs.shapes == {"counts": (4,)}
    elbo = Trace_ELBO()
    assert math.isfinite(elbo.loss_and_grads(model, guide, counts))
    assert math.isfinite(elbo.loss_and_grads(model, guide, counts[:, :5]))  # fewer documents


def test_missing_values_are_seen_as_missing():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHTS, 0.5).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    x = normal(20)
    x[3, 1] = torch.nan
    guide = amortize(model, "mean_field", x, network=SMALL)
    assert guide.inputs.shapes == {"x": (8,)}  # values, and where there are none
    assert math.isfinite(Trace_ELBO().loss_and_grads(model, guide, x))


def test_a_discrete_site_that_all_rows_share_is_named_where_nothing_is_said_per_row():
    @config_enumerate
    def model(x):
        early = pyro.sample("early", dist.Normal(0.0, 1.0))
        switch = pyro.sample("switch", dist.Categorical(torch.ones(4) / 4))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.where(switch > 2, early, 0.0), 1.0), obs=x[:, 0])

    probed = Pair(model, amortize(model, "mean_field", normal(), network=SMALL)).probe(normal())
    with pytest.raises(
        InputError, match=r"got 'switch' outside it, which is summed out, .*; ask to_arviz and criticise"
    ):
        draw(probed.by_row, normal())


def test_a_plate_without_a_size_is_one_in_the_guide_too():
    """Pyro warns of a plate whose rows are a site of the guide alone."""

    def model(x):
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    guide = amortize(model, "mean_field", normal(), network=SMALL)
    with pyro.validation_enabled():
        assert math.isfinite(Trace_ELBO().loss(model, guide, normal(3)))


def test_a_partial_and_a_method_are_programs():
    class Owner:
        def model(self, x):
            linear(x)

    for model in (functools.partial(linear), Owner().model):
        assert math.isfinite(Trace_ELBO().loss(model, amortize(model, "mean_field", normal(), network=SMALL), normal()))

"""Programs as users write them: compiled, a sequence of steps gives what stock Pyro gives at the same seed.

Each takes five steps and is evaluated four times: the first call of a kind runs eagerly, the second is recorded, the
third tries the graph, and the fourth is the graph's.  Warnings are errors here, so a program that was not compiled
fails.  By default most graphs run as they were recorded, which is where programs differ; ``-m exhaustive`` compiles
them all.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from pyro_vae.compiled import CompiledRenyiELBO, CompiledTrace_ELBO, CompiledTraceEnum_ELBO, CompiledTraceMeanField_ELBO
from tests.compiled.comparing import Make, call, compare, run, stock_of

pytestmark = pytest.mark.usefixtures("graph")
generator = torch.Generator().manual_seed(1)
DATA = torch.randn(12, generator=generator) + 1.0
INPUTS = torch.randn(12, 3, generator=generator)
TARGETS = INPUTS @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(12, generator=generator)


def check(make: Make, kind=CompiledTrace_ELBO, *args, graphs: int = 2, **options) -> None:
    """One graph for the steps and one for the evaluations, unless said otherwise."""
    calls = [call(*(args or (DATA,)))]
    assert compare(make, kind, calls * 5, calls * 4, **options) == graphs


def regression():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("data", x.shape[-2]):
            mean = (w * x).sum(-1)
            return pyro.sample("y", dist.Normal(mean, scale), obs=y)

    def guide(x, y=None):
        loc = pyro.param("loc", torch.zeros(3))
        width = pyro.param("width", 0.1 * torch.ones(3), constraint=constraints.positive)
        median = pyro.param("median", lambda: torch.tensor(0.5), constraint=constraints.interval(0.1, 2.0))
        pyro.sample("w", dist.Normal(loc, width).to_event(1))
        pyro.sample("scale", dist.LogNormal(median.log(), 0.1))

    return model, guide


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CompiledTrace_ELBO, {}),
        pytest.param(CompiledTrace_ELBO, {"num_particles": 3}, marks=pytest.mark.exhaustive),
        (CompiledTrace_ELBO, {"num_particles": 3, "vectorize_particles": True}),
        (CompiledTraceMeanField_ELBO, {}),
        (CompiledTraceEnum_ELBO, {"strict_enumeration_warning": False}),
        pytest.param(CompiledRenyiELBO, {"num_particles": 3}, marks=pytest.mark.exhaustive),
        (CompiledRenyiELBO, {"alpha": 0.5, "num_particles": 2, "vectorize_particles": True}),
    ],
)
def test_regression_with_constrained_parameters(kind, options):
    check(regression, kind, INPUTS, TARGETS, **options)


def test_keyword_arguments():
    calls = [call(x=INPUTS, y=TARGETS)]
    assert compare(regression, CompiledTrace_ELBO, calls * 4) == 1


@pytest.mark.parametrize(
    "make_guide",
    [
        AutoNormal,
        AutoDiagonalNormal,
        AutoMultivariateNormal,
        AutoDelta,
        lambda model: AutoLowRankMultivariateNormal(model, rank=2),
        lambda model: AutoIAFNormal(model, hidden_dim=[5]),
    ],
)
def test_automatic_guides(make_guide):
    def make():
        model, _ = regression()
        return model, make_guide(model)

    check(make, CompiledTrace_ELBO, INPUTS, TARGETS)


@pytest.mark.parametrize("kind", ["parallel", pytest.param("sequential", marks=pytest.mark.exhaustive)])
def test_a_mixture_with_the_component_enumerated_in_the_guide(kind):
    def make():
        def model(x):
            locs = pyro.param("locs", torch.tensor([-1.0, 0.5]))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
                pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)

        @config_enumerate(default=kind)
        def guide(x):
            probs = pyro.param("probs", torch.ones(4, 2) / 2, constraint=constraints.simplex)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Categorical(probs))

        return model, guide

    check(make, CompiledTraceEnum_ELBO, DATA[:4], max_plate_nesting=1)


def test_a_mixture_with_the_component_summed_out_of_the_model():
    def make():
        @config_enumerate
        def model(x):
            weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
            with pyro.plate("components", 3):
                locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Categorical(weights))
                pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)

        return model, AutoNormal(poutine.block(model, hide=["z"]))

    check(make, CompiledTraceEnum_ELBO, max_plate_nesting=1)


def test_a_hidden_markov_model():
    def make():
        @config_enumerate
        def model(x):
            transition = pyro.param(
                "transition", torch.tensor([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex
            )
            locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
            z = 0
            for t in pyro.markov(range(len(x))):
                z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]))
                pyro.sample(f"x_{t}", dist.Normal(locs[z], 1.0), obs=x[t])

        return model, lambda x: None

    steps = [call(DATA[:5] + 0.1 * i) for i in range(4)]
    assert compare(make, CompiledTraceEnum_ELBO, steps, max_plate_nesting=0) == 1


def coins():
    """A site without reparameterization has a score-function term."""

    def model(x):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(p))
            pyro.sample("x", dist.Normal(2 * z - 1, 1.0), obs=x)

    def guide(x):
        a = pyro.param("a", torch.tensor(2.0), constraint=constraints.positive)
        b = pyro.param("b", torch.tensor(3.0), constraint=constraints.positive)
        q = pyro.param("q", torch.full((len(x),), 0.4), constraint=constraints.unit_interval)
        pyro.sample("p", dist.Beta(a, b))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(q))

    return model, guide


@pytest.mark.parametrize("options", [{}, {"num_particles": 2}, {"num_particles": 2, "vectorize_particles": True}])
def test_a_score_function_term(options):
    check(coins, **options)


@pytest.mark.exhaustive
def test_the_score_function_gradient_has_the_same_mean():
    """Means of 1,000 gradients each, of 5 numbers, at different seeds: within 6 standard errors of each other.

    A false alarm has a chance below 1e-7.
    """
    model, guide = coins()
    x, found = DATA[:3], {}
    for seed, elbo in enumerate([CompiledTrace_ELBO(), Trace_ELBO()]):
        torch.manual_seed(seed)
        elbo.loss_and_grads(model, guide, x)  # makes the parameters
        parameters = [p for _, p in sorted(pyro.get_param_store().named_parameters())]
        gradients = []
        for _ in range(1000):
            for p in parameters:
                p.grad = None
            elbo.loss_and_grads(model, guide, x)
            gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
        found[seed] = torch.stack(gradients)
    error = sum(values.var(0) / len(values) for values in found.values()).sqrt()
    assert error.shape == (5,)
    assert ((found[0].mean(0) - found[1].mean(0)).abs() < 6 * error).all()


@pytest.mark.parametrize("beta", [0.25, torch.tensor(0.25)])
def test_subsampled_plates_masks_scales_and_factors(beta):
    def make():
        def model(x):
            mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), subsample_size=4) as index:
                with poutine.mask(mask=x[index] > 0.5), poutine.scale(scale=beta):
                    pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])
                pyro.factor("penalty", -0.1 * (x[index] - mean).abs())

        def guide(x):
            with poutine.scale(scale=beta):
                pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

        return model, guide

    check(make)


def test_a_correlation_matrix_whose_triangle_is_chosen_by_a_mask():
    """The transform of ``LKJCholesky`` picks and fills a triangle by masks that are alike in every run."""

    def make():
        def model(x):
            scale = pyro.sample("scale", dist.HalfNormal(torch.ones(3)).to_event(1))
            correlation = pyro.sample("correlation", dist.LKJCholesky(3, 1.5))
            with pyro.plate("data", len(x) // 3):
                normal = dist.MultivariateNormal(torch.zeros(3), scale_tril=scale.diag_embed() @ correlation)
                pyro.sample("x", normal, obs=x.view(-1, 3))

        return model, AutoNormal(model)

    check(make)


def test_a_beta_that_changes_on_every_step_does_so_in_one_graph():
    def make():
        def model(x, beta):
            with poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([12]).to_event(1), obs=x)

        def guide(x, beta):
            loc = pyro.param("loc", torch.tensor(0.5))
            with poutine.scale(scale=beta):
                pyro.sample("z", dist.Normal(loc, 1.0))

        return model, guide

    steps = [call(DATA, beta=torch.tensor(0.1 + 0.1 * i)) for i in range(8)]
    assert compare(make, CompiledTrace_ELBO, steps) == 1


def test_nested_plates():
    data = torch.randn(5, 4)

    def make():
        def model(x):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            with pyro.plate("groups", 4):
                group = pyro.sample("group", dist.Normal(top, 1.0))
                with pyro.plate("members", 5):
                    pyro.sample("x", dist.StudentT(4.0, group, 0.5), obs=x)

        def guide(x):
            pyro.sample("top", dist.Normal(pyro.param("top_loc", torch.tensor(0.0)), 1.0))
            loc = pyro.param("group_loc", torch.zeros(4), event_dim=0)
            with pyro.plate("groups", 4):
                pyro.sample("group", dist.Normal(loc, 0.3))

        return model, guide

    check(make, CompiledTrace_ELBO, data)
    check(make, CompiledTraceMeanField_ELBO, data)


def test_registered_networks():
    def make():
        decoder, encoder = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)), nn.Linear(3, 2)

        def model(x):
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

        return model, guide

    check(make, CompiledTrace_ELBO, INPUTS)


class Bayesian(PyroModule):
    """A regression whose weight is random, whose offset and scale are parameters."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)
        self.shift = PyroSample(lambda self: dist.Normal(0.0, self.scale))

    def forward(self, x, y=None):
        mean = self.linear(x).squeeze(-1) + self.shift
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, self.scale), obs=y)


def test_modules_of_pyro_with_random_attributes():
    def make():
        model = Bayesian()
        return model, AutoDiagonalNormal(model)

    check(make, CompiledTrace_ELBO, INPUTS, TARGETS)


class Guide(PyroModule):
    """A mean-field guide written as a module."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))
        self.width = PyroParam(torch.full((3,), 0.2), constraint=constraints.positive)

    def forward(self, x, y=None):
        pyro.sample("w", dist.Normal(self.loc, self.width).to_event(1))
        pyro.sample("scale", dist.LogNormal(-1.0, 0.1))


def test_a_guide_that_is_a_module():
    check(lambda: (regression()[0], Guide()), CompiledTrace_ELBO, INPUTS, TARGETS)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    "kind", [CompiledTrace_ELBO, CompiledTraceMeanField_ELBO, CompiledTraceEnum_ELBO], ids=lambda kind: kind.__name__
)
def test_the_loss_as_a_module_with_an_optimizer_of_torch(kind, local):
    """``elbo(model, guide)``, and an upstream factor to its gradient."""
    options = (
        {} if kind is not CompiledTraceEnum_ELBO else {"strict_enumeration_warning": False, "max_plate_nesting": 1}
    )

    def train(elbo):
        pyro.clear_param_store()
        torch.manual_seed(0)
        model = Bayesian()
        guide = AutoNormal(model)
        loss = elbo(model, guide)
        loss(INPUTS, TARGETS)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            value = loss(INPUTS, TARGETS)
            (value / 3 + value.detach()).backward()
            optimizer.step()
            losses.append(value.item())
        if elbo is not stock:
            assert elbo.num_graphs(model, guide) == 1
        return losses, [*loss.parameters()]

    stock = stock_of(kind)(**options)
    with pyro.settings.context(module_local_params=local):
        expected, expected_parameters = train(stock)
        losses, parameters = train(kind(**options))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert len(parameters) == len(expected_parameters) > 4
    for found, wanted in zip(parameters, expected_parameters, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_differentiable_loss_reaches_what_an_argument_was_computed_from():
    model, guide = regression()
    elbo, stock = CompiledTrace_ELBO(), Trace_ELBO()
    gradients = []
    for loss in (elbo, stock):
        torch.manual_seed(0)
        shift = torch.zeros(3, requires_grad=True)
        for _ in range(3):
            shift.grad = None
            loss.differentiable_loss(model, guide, INPUTS + shift.exp(), TARGETS).backward()
        gradients.append(shift.grad)
    assert elbo.num_graphs(model, guide) == 1
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].norm() > 0


def test_networks_that_pyro_does_not_know_have_their_gradients():
    network = nn.Linear(3, 1)

    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(network(x).squeeze(-1), pyro.param("scale", torch.tensor(0.5))), obs=y)

    def guide(x, y):
        pass

    elbo, found = CompiledTrace_ELBO(), []
    for loss in (elbo, Trace_ELBO()):
        network.zero_grad()
        for _ in range(4):
            loss.loss_and_grads(model, guide, INPUTS, TARGETS)
        found.append(network.weight.grad.clone())
    torch.testing.assert_close(found[0], found[1])
    assert elbo.num_graphs(model, guide) == 1


def test_the_loss_alone_leaves_gradients_as_they_are():
    model, guide = regression()
    elbo = CompiledTrace_ELBO()
    losses = []
    for loss in (elbo, Trace_ELBO()):
        torch.manual_seed(1)
        losses.append([loss.loss(model, guide, INPUTS, TARGETS) for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(p.grad is None for _, p in pyro.get_param_store().named_parameters())
    assert elbo.num_graphs(model, guide) == 1


def test_the_renyi_bound_tightens_with_particles_as_the_stock_one_does():
    """The two differ between estimators far more than 1e-4, so equality is not for want of a difference."""
    calls = [call(INPUTS, TARGETS)]
    plain = run(regression, RenyiELBO(num_particles=2), [], calls).losses
    many = run(regression, RenyiELBO(num_particles=50), [], calls).losses
    assert abs(plain[0] - many[0]) > 1e-3 * abs(plain[0])


def test_marginals_and_posterior_samples_are_the_stock_ones():
    @config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        return z

    def guide(x):
        pass

    ours, stock = CompiledTraceEnum_ELBO(max_plate_nesting=1), TraceEnum_ELBO(max_plate_nesting=1)
    marginals = [elbo.compute_marginals(model, guide, DATA)["z"].probs for elbo in (ours, stock)]
    torch.testing.assert_close(*marginals)
    assert ours.sample_posterior(model, guide, DATA).shape == (len(DATA),)

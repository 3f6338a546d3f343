"""The compiled estimators are estimators of the stock classes: their arguments, attributes and kinds."""

from __future__ import annotations

import contextlib
import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from torch import nn

import pyro_vae.compiled
from pyro_vae.compiled import (
    CompiledELBO,
    CompiledRenyiELBO,
    CompiledTrace_ELBO,
    CompiledTraceEnum_ELBO,
    CompiledTraceGraph_ELBO,
    CompiledTraceMeanField_ELBO,
    CompiledTraceTMC_ELBO,
    NotCompiled,
    readings,
)
from tests.compiled.agreeing import DATA, gaussian, guide, ignored, losses
from tests.compiled.comparing import assert_equal, call, compare, run, stock_of

pytestmark = pytest.mark.usefixtures("uncompiled")
KINDS = [
    getattr(pyro_vae.compiled, name)
    for name in pyro_vae.compiled.__all__
    if name.startswith("Compiled") and name != "CompiledELBO"
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_is_one_of_the_stock_class_and_takes_its_arguments(kind):
    stock = stock_of(kind)
    elbo = kind(3, num_particles=2) if kind is CompiledRenyiELBO else kind(2)
    assert isinstance(elbo, stock)
    assert kind.__name__ == f"Compiled{stock.__name__}"
    assert inspect.signature(kind.__init__) == inspect.signature(stock.__init__)
    expected = stock(3, num_particles=2) if kind is CompiledRenyiELBO else stock(2)
    assert {name: value for name, value in vars(elbo).items() if name in vars(expected)} == vars(expected)


def test_arguments_are_those_of_the_stock_class_by_position():
    options = (2, 5, None, True, False, True, None, True)
    ours, stock = CompiledTrace_ELBO(*options), Trace_ELBO(*options)
    assert ours.max_plate_nesting == stock.max_plate_nesting == 6
    assert ours.retain_graph is True
    assert CompiledRenyiELBO(0.5, 4).num_particles == RenyiELBO(0.5, 4).num_particles == 4


def test_one_that_extends_another_is_one_of_it():
    assert isinstance(CompiledTraceMeanField_ELBO(), CompiledTrace_ELBO)
    assert not isinstance(CompiledTraceEnum_ELBO(), Trace_ELBO)


def test_attributes_that_are_set_later_have_effect():
    found = []
    for elbo in (Trace_ELBO(), CompiledTrace_ELBO()):
        before = losses(elbo, gaussian, each=3)
        elbo.num_particles = 4
        after = losses(elbo, gaussian, each=4)
        elbo.strict_enumeration_warning = False
        found.append([*before, *after, *losses(elbo, gaussian, each=4)])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert elbo.num_graphs(gaussian, guide) == 3


@config_enumerate
def nested(x):
    with pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", x.shape[1], dim=-1):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(2.0 * k, pyro.param("scale", torch.tensor(1.0))), obs=x)


@config_enumerate
def flat(x):
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(2.0 * k, pyro.param("scale", torch.tensor(1.0))), obs=x)


def nothing(x):
    pass


def test_a_nesting_that_is_found_can_be_read_and_is_that_of_each_program():
    elbo, square = CompiledTraceEnum_ELBO(), torch.arange(6.0).reshape(2, 3)
    pyro.clear_param_store()
    for _ in range(3):
        for model, x, nesting in ((flat, DATA, 1), (nested, square, 2)):
            loss = elbo.loss_and_grads(model, nothing, x)
            assert elbo.max_plate_nesting == nesting
            assert loss == pytest.approx(TraceEnum_ELBO(max_plate_nesting=nesting).loss(model, nothing, x))
            assert "k" in elbo.compute_marginals(model, nothing, x)
    assert elbo.num_graphs(flat, nothing) == elbo.num_graphs(nested, nothing) == 1


def test_a_nesting_that_is_given_later_has_effect():
    elbo = CompiledTraceEnum_ELBO()
    pyro.clear_param_store()
    for _ in range(3):
        elbo.loss(flat, nothing, DATA)
    elbo.max_plate_nesting = 3
    for _ in range(3):
        elbo.loss(flat, nothing, DATA)
        assert elbo.max_plate_nesting == 3
    assert elbo.num_graphs(flat, nothing) == 2


def test_a_derived_class_has_its_say():
    class Half:
        def _differentiable_loss_particle(self, model_trace, guide_trace):
            loss, surrogate = super()._differentiable_loss_particle(model_trace, guide_trace)
            return self.weight * loss, self.weight * surrogate

    class Ours(Half, CompiledTrace_ELBO):
        weight = 0.5

    class Stock(Half, Trace_ELBO):
        weight = 0.5

    elbo = Ours()
    assert losses(elbo, gaussian, each=4) == pytest.approx(losses(Stock(), gaussian, each=4), rel=1e-5)
    assert elbo.num_graphs(gaussian, guide) == 1


def test_a_module_trains_under_torch_and_svi_takes_any_estimator():
    class Model(nn.Module):
        def forward(self, x):
            gaussian(x)

    module = CompiledTrace_ELBO()(Model(), pyro.nn.PyroModule())
    assert isinstance(module, pyro.infer.elbo.ELBOModule)
    assert isinstance(SVI(gaussian, guide, pyro.optim.Adam({}), CompiledTrace_ELBO()).loss.__self__, ELBO)


def discrete_pair(**infer):
    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        a = pyro.sample("a", dist.Bernoulli(0.4))
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Poisson(1.0 + 2 * a))
            pyro.sample("x", dist.Normal(b, scale), obs=x)

    def own_guide(x):
        probability = pyro.param("probability", torch.tensor(0.6), constraint=dist.constraints.unit_interval)
        rate = pyro.param("rate", torch.full((len(x),), 2.0), constraint=dist.constraints.positive)
        pyro.sample("a", dist.Bernoulli(probability), infer=infer)
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Poisson(rate), infer=infer)

    return lambda: (model, own_guide)


@pytest.mark.parametrize("particles", [1, 3])
def test_tracegraph_is_stocks(particles):
    make = discrete_pair()
    assert compare(make, CompiledTraceGraph_ELBO, [call(DATA)] * 5, [call(DATA)] * 3, num_particles=particles) == 2


@pytest.mark.parametrize("baseline", ["average", "network", "value"])
def test_baselines_learn_as_in_stock_pyro(baseline):
    def make():
        network = nn.Linear(len(DATA), 1)

        def model(x):
            rate = 1.0 + pyro.sample("z", dist.Poisson(2.0))
            pyro.sample("x", dist.Poisson(rate).expand([len(x)]).to_event(1), obs=x.abs().round())

        def own_guide(x):
            options = {"use_decaying_avg_baseline": True}
            if baseline == "network":
                pyro.module("network", network)
                options = {"nn_baseline": lambda features: network(features).squeeze(-1), "nn_baseline_input": x}
            if baseline == "value":
                options = {"baseline_value": pyro.param("value", torch.tensor(1.0))}
            rate = pyro.param("rate", torch.tensor(3.0), constraint=dist.constraints.positive)
            pyro.sample("z", dist.Poisson(rate), infer={"baseline": options})

        return model, own_guide

    found = [run(make, elbo, [call(DATA)] * 9) for elbo in (TraceGraph_ELBO(), CompiledTraceGraph_ELBO())]
    assert_equal(found[1], found[0])
    assert found[1].num_graphs == 1
    assert baseline != "average" or found[1].parameters["__baseline_avg_downstream_cost_z"] != 0


@pytest.mark.parametrize("tmc", ["diagonal", "mixture"])
def test_tmc_is_stocks(tmc):
    def make():
        scale = torch.tensor(1.0)

        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Categorical(torch.ones(3)))
                pyro.sample("x", dist.Normal(z + k, pyro.param("scale", scale)), obs=x)

        return config_enumerate(model, default="parallel", expand=False, num_samples=5, tmc=tmc), nothing

    assert compare(make, CompiledTraceTMC_ELBO, [call(DATA)] * 5, [call(DATA)] * 3, max_plate_nesting=1) == 2


def test_a_new_estimator_is_a_class_of_two_parents():
    class CompiledTraceTailAdaptive_ELBO(CompiledELBO, pyro.infer.TraceTailAdaptive_ELBO):
        pass

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    options = {"num_particles": 8, "vectorize_particles": True, "max_plate_nesting": 1}
    stock, ours = pyro.infer.TraceTailAdaptive_ELBO(**options), CompiledTraceTailAdaptive_ELBO(**options)
    expected, found = (run(lambda: (model, guide), elbo, [call(DATA)] * 5) for elbo in (stock, ours))
    assert_equal(found, expected)
    assert found.num_graphs == 1
    assert abs(found.parameters["loc"] - 0.3) > 0.05


def categories(x):
    """A draw chooses the component of one datum, and places of a table."""
    table = torch.arange(12.0).reshape(3, 4) / 10
    locs = pyro.param("locs", torch.tensor([-1.0, 0.5, 2.0]))
    for i in pyro.plate("data", 3):
        k = pyro.sample(f"k_{i}", dist.Categorical(torch.ones(3)))
        loc = (
            locs[k]
            + table[k, 1]
            + table[1:, k].sum()
            + table[k - 3, -1]
            + table[k, ..., 1:].sum()
            + table[..., k].sum()
        )
        pyro.sample(f"x_{i}", dist.Normal(loc, 1.0), obs=x[i])


def choose(x):
    for i in pyro.plate("data", 3):
        logits = pyro.param(f"logits_{i}", torch.zeros(3))
        pyro.sample(f"k_{i}", dist.Categorical(logits=logits))


def test_a_draw_may_be_an_index():
    assert compare(lambda: (categories, choose), CompiledTrace_ELBO, [call(DATA)] * 8) == 1


@contextlib.contextmanager
def half():
    with pyro.poutine.scale(scale=0.5):
        yield


def test_a_program_may_be_decorated_by_a_context():
    assert compare(lambda: (half()(gaussian), half()(guide)), CompiledTrace_ELBO, [call(DATA)] * 6) == 1


def test_estimators_made_anew_at_each_step_look_at_nothing(monkeypatch):
    """Once that is known: after eight of them."""
    with ignored(NotCompiled):
        found = [losses(CompiledTrace_ELBO(), gaussian, each=1) for _ in range(8)]
        monkeypatch.setattr(readings.Reader, "read", None)  # so that it would raise
        found += [losses(kind(), gaussian, each=1) for kind in (CompiledTrace_ELBO, Trace_ELBO) for _ in range(3)]
    assert found == [found[0]] * 14

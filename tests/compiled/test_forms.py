"""Programs of every form, where their parameters live, and that nothing keeps them alive."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import types
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_vae.compiled import CompiledTrace_ELBO, Recompiled
from pyro_vae.compiled.program_state import Watch
from tests.compiled.agreeing import DATA, gaussian, guide, ignored, losses
from tests.compiled.comparing import assert_equal, call, run

pytestmark = pytest.mark.usefixtures("uncompiled")


class Owner:
    """Both programs as methods."""

    def __init__(self):
        self.offset = 0.5
        self.losses = []

    def model(self, x):
        gaussian(x, offset=self.offset)

    def guide(self, x):
        guide(x)


class Callable:
    def __call__(self, x):
        gaussian(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (Owner().model, guide),
        lambda: (functools.partial(gaussian, scale=2.0), functools.partial(guide)),
        lambda: (lambda x: gaussian(x), lambda x: guide(x)),
        lambda: (Callable(), guide),
        lambda: (poutine.scale(poutine.mask(gaussian, mask=True), scale=0.5), poutine.scale(guide, scale=0.5)),
        lambda: (poutine.condition(gaussian, data={"z": torch.tensor(0.4)}), lambda x: None),
    ],
)
def test_programs_of_every_form(make):
    steps = [call(DATA)] * 4
    if make()[0].__class__ is not types.MethodType:
        assert compare_unless_constant(make, steps) == 1
        return
    owner = Owner()  # its methods are made anew whenever they are read
    elbo = CompiledTrace_ELBO()
    for _ in range(4):
        elbo.loss_and_grads(owner.model, owner.guide, DATA)
        owner.losses.append(1.0)  # what the programs do not mention is not theirs
    assert elbo.num_graphs(owner.model, owner.guide) == 1


def compare_unless_constant(make, steps) -> int:
    found = run(make, CompiledTrace_ELBO(), steps)
    assert_equal(found, run(make, Trace_ELBO(), steps))
    return found.num_graphs


@pytest.mark.exhaustive
@pytest.mark.usefixtures("compiled")
def test_programs_are_let_go():
    elbo = CompiledTrace_ELBO()

    def leave():
        network = nn.Linear(1, 1)
        model = functools.partial(gaussian, scale=2.0)

        def own(x):
            pyro.module("network", network)
            return guide(x)

        for _ in range(4):
            elbo.loss_and_grads(model, own, DATA)
        assert elbo.num_graphs(model, own) == 1
        return [weakref.ref(thing) for thing in (model, own, network)]

    found = leave()
    pyro.clear_param_store()
    gc.collect()
    assert [reference() for reference in found] == [None] * 3
    assert not elbo._pairs


def test_methods_of_an_object_that_knows_both_are_let_go():
    elbo = CompiledTrace_ELBO()
    owner = Owner()
    owner.self = owner
    for _ in range(4):
        elbo.loss_and_grads(owner.model, owner.guide, DATA)
    found = weakref.ref(owner)
    del owner
    gc.collect()
    assert found() is None
    assert not elbo._pairs


def test_methods_are_looked_at_once_though_each_reading_of_them_is_another_object(monkeypatch):
    looks = []
    monkeypatch.setattr(Watch, "_walk_all", lambda *given, all=Watch._walk_all: looks.append(given) or all(*given))
    elbo, owner = CompiledTrace_ELBO(), Owner()
    for _ in range(6):
        elbo.differentiable_loss(owner.model, owner.guide, DATA)
    assert len(looks) == 1
    owner.offset = True  # another form
    elbo.differentiable_loss(owner.model, owner.guide, DATA)
    assert len(looks) == 2


@pytest.mark.exhaustive
@pytest.mark.usefixtures("compiled")
def test_an_estimator_is_let_go_before_its_programs():
    elbo = CompiledTrace_ELBO()
    losses(elbo, gaussian)
    pair = weakref.ref(elbo._known(gaussian, guide).pair)
    del elbo
    gc.collect()
    assert pair() is None


def test_copies_have_no_graphs_yet():
    elbo = CompiledTrace_ELBO(num_particles=2)
    before = losses(elbo, gaussian)
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        assert other.num_graphs(gaussian, guide) == 0
        assert losses(other, gaussian) == pytest.approx(before)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("compiled")
def test_gradients_accumulate_and_those_that_are_equal_are_not_shared():
    def model(x):
        a, b = pyro.param("a", torch.zeros(6)), pyro.param("b", torch.zeros(6))
        unused = pyro.param("unused", torch.zeros(1))
        gaussian(x + a + b + 0 * len(unused))
        pyro.factor("linear", a.sum() + b.sum() + pyro.param("c", torch.zeros(6)).sum())
        pyro.factor("product", -(pyro.param("d", torch.zeros(6)) * x).sum())

    found = []
    for loss in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        for _ in range(5):
            loss.loss_and_grads(model, guide, DATA)
        found.append({name: p.grad for name, p in pyro.get_param_store().named_parameters()})
    assert found[0]["unused"] is None is found[1]["unused"]
    for name in ("a", "b", "c", "d", "loc"):
        torch.testing.assert_close(found[0][name], found[1][name])


def test_parameters_with_hooks_and_parameters_computed_elsewhere():
    seen = []
    for loss in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        source = torch.ones(6, requires_grad=True)
        loss.loss_and_grads(gaussian, guide, DATA)
        pyro.param("loc").unconstrained().register_hook(lambda gradient: 2 * gradient)
        for _ in range(3):
            loss.loss_and_grads(gaussian, guide, DATA + source.exp())
        seen.append((pyro.param("loc").unconstrained().grad, source.grad))
    torch.testing.assert_close(seen[0], seen[1])


def test_a_cleared_store_starts_again():
    elbo = CompiledTrace_ELBO()
    first, second = losses(elbo, gaussian, each=5), losses(elbo, gaussian, each=5)
    assert first == pytest.approx(second)
    assert elbo.num_graphs(gaussian, guide) == 1


def test_parameters_of_another_shape_after_clearing():
    size = torch.zeros(3)

    def wide(x):
        loc = pyro.param("loc", lambda: torch.zeros(len(size)))
        pyro.sample("z", dist.Normal(loc.sum(), 1.0))

    elbo = CompiledTrace_ELBO()
    for length in (3, 5):
        found, size = [], torch.zeros(length)
        for loss in (elbo, Trace_ELBO()):
            pyro.clear_param_store()
            torch.manual_seed(0)
            found.append([loss.loss_and_grads(gaussian, wide, DATA) for _ in range(4)])
        assert found[0] == pytest.approx(found[1])
    assert elbo.num_graphs(gaussian, wide) == 2


def test_a_loaded_store_is_what_a_module_reads():
    def model(x):
        pyro.module("network", network, update_module_params=True)
        gaussian(network(x))

    elbo, found = CompiledTrace_ELBO(), []
    for loss in (Trace_ELBO(), elbo):
        pyro.clear_param_store()
        torch.manual_seed(0)
        network = nn.Linear(6, 6)
        values = [loss.loss_and_grads(model, guide, DATA) for _ in range(4)]
        state = {name: value.detach() + 1 for name, value in pyro.get_param_store().items()}
        for name, value in state.items():
            pyro.get_param_store()[name] = value
        with ignored(Recompiled):
            values += [loss.loss_and_grads(model, guide, DATA) for _ in range(4)]
        found.append(values)
    assert found[1] == pytest.approx(found[0], rel=1e-4)

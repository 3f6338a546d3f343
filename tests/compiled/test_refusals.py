"""What cannot be compiled runs eagerly, and says why."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch._inductor.exc import InvalidCxxCompiler

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled, recorded_graph
from tests.compiled.agreeing import DATA, agree, gaussian, guide, losses

pytestmark = pytest.mark.usefixtures("uncompiled")


def number(x, z):
    return x if float(z.detach()) > 0 else x + 1


def whole_number(x, z):
    return x + int(x.sum())


def text(x, z):
    return x + len(f"{z}")


def array(x, z):
    return x if z.detach().numpy() > 0 else x + 1


def listed(x, z):
    return x + sum(x.tolist()[:2])


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (number, "a number in Python depends on the value of a tensor"),
        (whole_number, "a whole number in Python depends on the value of a tensor"),
        (text, "a text in Python depends on the value of a tensor"),
        (array, "an array in Python depends on the value of a tensor"),
        (listed, "a list in Python depends on the value of a tensor"),
    ],
)
def test_a_structure_that_depends_on_values_runs_eagerly(structure, reason):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        y = structure(x, z)
        pyro.sample("x", dist.Normal(z, 1.0).expand([len(y)]).to_event(1), obs=y)

    place = rf"\(test_refusals.py, line {structure.__code__.co_firstlineno + 1}\)"
    with pytest.warns(NotCompiled, match=f"Trace_ELBO runs eagerly: {reason} {place}") as said:
        assert agree(lambda: model, each=5).graphs_of_model == 0
    assert len(said) == 1


def test_what_the_compiler_refuses_is_replayed_and_says_so_once(monkeypatch, caplog, at_once):
    def compiler(*arguments):
        raise InvalidCxxCompiler

    monkeypatch.setattr(recorded_graph, "compile_recording", compiler)
    with caplog.at_level(logging.INFO):
        assert agree(lambda: gaussian, each=6).graphs_of_model == 1
    assert [entry for entry in caplog.messages if "no C++ compiler was found" in entry] == [
        "Trace_ELBO is replayed as recorded: no C++ compiler was found; install g++ or clang, or set CXX"
    ]


@pytest.mark.parametrize("method", ["loss_and_grads", "differentiable_loss"])
def test_what_was_computed_outside_with_gradients_is_gone_back_through_once(method):
    """A tensor made anew from a parameter before each step; to go back through it in a recording would use it up."""

    def train(elbo):
        torch.manual_seed(0)
        pyro.clear_param_store()
        raw, owner, found = torch.tensor(0.5, requires_grad=True), SimpleNamespace(), []
        optimizer = torch.optim.SGD([raw], lr=0.01)

        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, owner.scale))
            pyro.sample("x", dist.Normal(z, owner.scale).expand([len(x)]).to_event(1), obs=x)

        for _ in range(6):
            owner.scale = raw.exp()
            optimizer.zero_grad()
            loss = getattr(elbo, method)(model, guide, DATA)
            if method == "differentiable_loss":
                loss.backward()
            found += [torch.as_tensor(loss).item(), raw.grad.item()]
            optimizer.step()
        return found

    with pytest.warns(NotCompiled, match="it reads a tensor that was computed outside of it, with gradients"):
        found = train(CompiledTrace_ELBO())
    assert found == train(Trace_ELBO())


def test_a_block_around_a_call_changes_nothing():
    elbo = CompiledTrace_ELBO()
    with pyro.poutine.block(), pyro.poutine.block(hide=["z"]):
        found = losses(elbo, gaussian)
        assert found == pytest.approx(losses(Trace_ELBO(), gaussian), rel=1e-5)
    assert elbo.num_graphs(gaussian, guide) == 1


def test_calls_that_cannot_be_recorded_leave_the_graphs_of_others_alone():
    def model(x, check=False):
        gaussian(x)
        if check and float(x.sum()) > 0:
            pyro.factor("more", torch.tensor(1.0))

    calls = [False] * 4 + [True, False] * 4
    elbo = CompiledTrace_ELBO()

    def found_by(kind):
        pyro.clear_param_store()
        torch.manual_seed(0)
        return [kind.loss(model, guide, DATA, check=check) for check in calls]

    with pytest.warns(NotCompiled, match="a number in Python .*in calls of one kind") as said:
        ours = found_by(elbo)
    assert ours == pytest.approx(found_by(Trace_ELBO()), rel=1e-5)
    assert len(said) == elbo.num_graphs(model, guide) == 1
    pair = elbo._known(model, guide).pair
    assert len(pair._graphs) == 1

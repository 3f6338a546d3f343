"""Calls of a compiled estimator: fresh noise, several models, shapes, arguments."""

from __future__ import annotations

import argparse
import functools
import re
import types
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled
from tests.compiled.agreeing import DATA, gaussian, guide, ignored, losses
from tests.compiled.comparing import assert_equal, call, compare, run

pytestmark = pytest.mark.usefixtures("uncompiled")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("compiled")
def test_each_call_draws_anew():
    assert len(set(losses(CompiledTrace_ELBO(), gaussian, each=8))) == 8


def test_one_object_serves_several_models():
    elbo, stock = CompiledTrace_ELBO(), Trace_ELBO()
    far = functools.partial(gaussian, offset=10.0)
    found = []
    for loss in (elbo, stock):
        torch.manual_seed(0)
        found.append([loss.loss_and_grads(model, guide, DATA) for _ in range(4) for model in (gaussian, far)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert (elbo.num_graphs(gaussian, guide), elbo.num_graphs(far, guide)) == (1, 1)


def test_a_short_last_batch_has_a_graph_of_its_own_and_no_more():
    epoch = [call(DATA[:4]), call(DATA[2:]), call(DATA[:3])]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, epoch * 2) == 2
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, epoch * 5) == 2


def test_neither_a_tensor_that_changes_nor_a_number_is_a_new_graph():
    numbers = [call(DATA, scale=1.0 + 0.5 * (i % 3)) for i in range(9)]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, numbers) == 1
    tensors = [call(DATA, scale=torch.tensor(1.0 + 0.5 * i)) for i in range(9)]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, tensors) == 1


def test_a_number_that_was_one_value_for_a_while_is_two_graphs():
    numbers = [call(DATA, scale=1.0)] * 5 + [call(DATA, scale=1.0 + 0.1 * i) for i in range(6)]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, numbers) == 2


def test_a_number_that_cannot_be_a_tensor_is_a_graph_of_its_own_for_each_value():
    def model(x, count):
        gaussian(x[:count])

    steps = [call(DATA, count) for count in (3, 3, 3, 3, 4, 4, 4, 4, 4, 3, 3)]
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 2


def test_the_graphs_of_many_kinds_of_calls_give_way_one_to_another():
    steps = [call(torch.linspace(-1.0, 2.0, 2 + i)) for i in range(18) for _ in range(4)]
    with pytest.warns(NotCompiled, match="more than 16 kinds; the graph that was used least recently") as said:
        found = run(lambda: (gaussian, guide), CompiledTrace_ELBO(), steps)
    assert len(said) == 1
    assert_equal(found, run(lambda: (gaussian, guide), Trace_ELBO(), steps))
    assert found.num_graphs == 18


@pytest.mark.exhaustive
@pytest.mark.usefixtures("compiled")
def test_the_same_tensor_twice_is_not_two_tensors():
    def model(a, b):
        gaussian(a * b)

    steps = [call(DATA, DATA)] * 4 + [call(DATA, DATA + 1)] * 3
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 1


def test_an_argument_that_the_program_also_holds():
    held = DATA.clone()

    def model(x):
        gaussian(x + held)

    steps = [call(held)] * 4 + [call(DATA + 1)] * 3
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 1


def test_arguments_in_containers():
    def model(batch, options):
        gaussian(batch["x"] + batch["shifts"][1], scale=options[0])

    steps = [call({"x": DATA, "shifts": [torch.zeros(6), torch.full((6,), float(i))]}, (1.5,)) for i in range(5)]
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 1


@dataclass
class Batch:
    x: torch.Tensor
    scale: float = 1.0


def of_an_object(batch):
    gaussian(batch.x, scale=batch.scale)


@pytest.mark.parametrize("kind", [Batch, argparse.Namespace, types.SimpleNamespace])
def test_objects_as_arguments(kind):
    steps = [call(kind(x=DATA + i, scale=1.5)) for i in range(6)]
    assert compare(lambda: (of_an_object, guide), CompiledTrace_ELBO, steps) == 1
    steps = [call(kind(x=DATA, scale=1.0 + i)) for i in range(6)]
    assert compare(lambda: (of_an_object, guide), CompiledTrace_ELBO, steps) == 1
    steps = [call(kind(x=DATA[: 4 + i % 2], scale=1.0)) for i in range(10)]
    assert compare(lambda: (of_an_object, guide), CompiledTrace_ELBO, steps) == 2


def test_modules_and_functions_as_arguments():
    torch.manual_seed(0)
    networks = [nn.Linear(6, 6), nn.Linear(6, 6)]

    def model(x, network, change):
        gaussian(change(network(x)))

    def shift(by):
        return lambda x: x + by

    steps = [call(DATA, networks[i % 2], shift(torch.tensor(float(i)))) for i in range(10)]
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 1
    steps = [call(DATA, networks[0], change) for change in (torch.exp, torch.sin) for _ in range(5)]
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 2


def test_numpy_among_the_arguments():
    def model(x, shift):
        gaussian(x + torch.as_tensor(shift, dtype=x.dtype))

    for shift in (np.float64(0.5), np.int64(2), np.linspace(0.0, 1.0, 6)):
        assert compare(lambda: (model, guide), CompiledTrace_ELBO, [call(DATA, shift)] * 5) == 1


def test_an_iterator_as_argument_runs_eagerly():
    def model(batches):
        gaussian(next(batches))

    def make():
        return model, guide

    def steps():
        batches = iter([DATA + i for i in range(6)])
        return [call(batches) for _ in range(6)]

    with pytest.warns(NotCompiled, match="argument 1 is a list_iterator, which can be read once") as said:
        found = run(make, CompiledTrace_ELBO(), steps())
    assert len(said) == 1
    assert_equal(found, run(make, Trace_ELBO(), steps()))


def test_views_whose_memory_holds_something_else_have_graphs_of_their_own():
    def model(x):
        gaussian((x * x.conj()).real + x.imag)

    numbers = torch.complex(DATA, DATA.flip(0))
    elbo = CompiledTrace_ELBO()
    found = []
    for loss in (elbo, Trace_ELBO()):
        torch.manual_seed(0)
        found.append([loss.loss_and_grads(model, guide, x) for x in [numbers] * 5 + [numbers.conj()] * 5])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert elbo.num_graphs(model, guide) == 2


def test_a_tensor_of_inference_mode_has_no_gradients_behind_it_as_without_a_graph():
    def model(x):
        gaussian(weight * x)

    weight = torch.ones(6, requires_grad=True)
    with torch.inference_mode():
        made = DATA.clone()
    elbo = CompiledTrace_ELBO()
    for _ in range(4):
        elbo.loss_and_grads(model, guide, DATA)
    assert elbo.num_graphs(model, guide) == 1
    for _ in range(3):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
            elbo.loss_and_grads(model, guide, made)


@pytest.mark.parametrize(
    ("batches", "what"),
    [
        ([{"x": DATA, "name": f"batch {i}"} for i in range(12)], "argument 1['name'] differs"),
        ([{"x": DATA.numpy() + i, "name": "a batch"} for i in range(12)], "argument 1['x'] differs"),
    ],
)
def test_what_makes_each_call_one_of_its_own_kind_is_said(batches, what):
    def model(batch):
        gaussian(torch.as_tensor(batch["x"]))

    elbo = CompiledTrace_ELBO()
    with pytest.warns(NotCompiled, match=re.escape(what)):
        [elbo.loss_and_grads(model, guide, batch) for batch in batches]


def test_keys_that_are_written_alike_are_not_taken_for_one():
    class Key:
        def __repr__(self):
            return "key"

    def model(batch):
        for value in batch.values():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, value).expand([6]).to_event(1), obs=DATA)
            break

    one, other = Key(), Key()
    found = []
    for kind in (CompiledTrace_ELBO, Trace_ELBO):
        torch.manual_seed(0)
        elbo = kind()
        with ignored(NotCompiled):
            found.append([elbo.loss(model, guide, {one: 1.0 + i // 5, other: 1.0}) for i in range(10)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)

"""Calls of a compiled estimator: fresh noise, several models, shapes, arguments."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled
from tests.compiled.agreeing import DATA, gaussian, guide, losses
from tests.compiled.comparing import assert_equal, call, compare, run

pytestmark = pytest.mark.usefixtures("uncompiled")


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


def test_a_tensor_that_changes_is_no_new_graph_and_a_number_is():
    numbers = [call(DATA, scale=1.0 + 0.5 * (i % 3)) for i in range(9)]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, numbers) == 3
    tensors = [call(DATA, scale=torch.tensor(1.0 + 0.5 * i)) for i in range(9)]
    assert compare(lambda: (gaussian, guide), CompiledTrace_ELBO, tensors) == 1


def test_too_many_kinds_of_calls_run_eagerly():
    steps = [call(DATA, scale=1.0 + i) for i in range(18) for _ in range(3)]
    with pytest.warns(NotCompiled, match="more than 16 kinds; hand over as tensors what changes") as said:
        found = run(lambda: (gaussian, guide), CompiledTrace_ELBO(), steps)
    assert len(said) == 1
    assert_equal(found, run(lambda: (gaussian, guide), Trace_ELBO(), steps))
    assert found.num_graphs == 16


@pytest.mark.usefixtures("compiled")
def test_the_same_tensor_twice_is_not_two_tensors():
    def model(a, b):
        gaussian(a * b)

    steps = [call(DATA, DATA)] * 3 + [call(DATA, DATA + 1)] * 3
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 2


def test_an_argument_that_the_program_also_holds():
    held = DATA.clone()

    def model(x):
        gaussian(x + held)

    steps = [call(held)] * 3 + [call(DATA + 1)] * 3
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 2


def test_arguments_in_containers():
    def model(batch, options):
        gaussian(batch["x"] + batch["shifts"][1], scale=options[0])

    steps = [call({"x": DATA, "shifts": [torch.zeros(6), torch.full((6,), float(i))]}, (1.5,)) for i in range(5)]
    assert compare(lambda: (model, guide), CompiledTrace_ELBO, steps) == 1


def test_an_argument_that_cannot_be_compared_runs_eagerly():
    @dataclass
    class Batch:
        x: torch.Tensor

    def model(batch):
        gaussian(batch.x)

    steps = [call(Batch(DATA + i)) for i in range(4)]
    with pytest.warns(NotCompiled, match="an argument is of type Batch; hand over tensors, plain values"):
        found = run(lambda: (model, guide), CompiledTrace_ELBO(), steps)
    assert_equal(found, run(lambda: (model, guide), Trace_ELBO(), steps))

"""What a compiled estimator promises: it gives what the stock one would, and says it where it does not compile."""

from __future__ import annotations

import copy
import functools
import gc
import os
import pickle
import random
import re
import subprocess
import sys
import textwrap
import types
import warnings
import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vae.inference.compiled import CompiledTrace_ELBO, NotCompiled, Recompiled
from tests.inference.compiled.comparing import assert_equal, call, compare, run

DATA = torch.linspace(-1.0, 2.0, 6)
pytestmark = pytest.mark.usefixtures("uncompiled")
SCALE = 1.0
SHIFT = torch.zeros(6)


def guide(*args, **kwargs):
    return pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))


def gaussian(x, offset=0.0, scale=1.0):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + offset, scale).expand([len(x)]).to_event(1), obs=x)


@contextmanager
def ignored(kind):
    """Without the warnings of a kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield


def losses(elbo, model, *changes, each=3, args=(DATA,)) -> list[float]:
    """The losses of some calls before the first change, after it, and so on."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    found = []
    for change in (lambda: None, *changes):
        change()
        found += [elbo.loss_and_grads(model, guide, *args) for _ in range(each)]
    return found


def agree(make_model, *changes, each=3, args=(DATA,)) -> CompiledTrace_ELBO:
    """Both estimators agree on programs that change; ``changes`` take the model."""
    found, elbo = [], CompiledTrace_ELBO()
    for loss in (Trace_ELBO(), elbo):
        torch.manual_seed(1)
        model = make_model()
        found.append(
            losses(loss, model, *(functools.partial(change, model) for change in changes), each=each, args=args)
        )
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    elbo.graphs_of_model = elbo.num_graphs(model, guide)
    return elbo


# -- Calls ---------------------------------------------------------------------------------------------------------


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


# -- Programs of every form ----------------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("compiled")
def test_an_estimator_is_let_go_before_its_programs():
    elbo = CompiledTrace_ELBO()
    losses(elbo, gaussian)
    pair = weakref.ref(elbo._pair(gaussian, guide))
    del elbo
    gc.collect()
    assert pair() is None


def test_copies_have_no_graphs_yet():
    elbo = CompiledTrace_ELBO(num_particles=2)
    before = losses(elbo, gaussian)
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        assert other.num_graphs(gaussian, guide) == 0
        assert losses(other, gaussian) == pytest.approx(before)


# -- Parameters ----------------------------------------------------------------------------------------------------


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
    sizes = iter([3, 3, 5, 5])

    def wide(x):
        loc = pyro.param("loc", lambda: torch.zeros(next(sizes)))
        pyro.sample("z", dist.Normal(loc.sum(), 1.0))

    elbo = CompiledTrace_ELBO()
    for _ in range(2):
        found = []
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


# -- Validation, warnings, handlers --------------------------------------------------------------------------------


def test_a_mistake_shows_at_the_first_call_as_in_stock_pyro():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)  # no plate

    def messages(loss):
        with pytest.raises(ValueError, match="invalid log_prob shape") as raised:
            loss.loss_and_grads(model, guide, DATA)
        return str(raised.value)

    with pyro.validation_enabled(True):
        assert messages(CompiledTrace_ELBO()) == messages(Trace_ELBO())


@pytest.mark.parametrize("validated", [False, True])
def test_validation_is_left_as_it_was(validated):
    prior = dist.Normal(torch.zeros(()), 1.0, validate_args=True)

    def model(x):
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z, 1.0).expand([6]).to_event(1), obs=x)

    with pyro.validation_enabled(validated):
        found = run(lambda: (model, guide), CompiledTrace_ELBO(), [call(DATA)] * 4)
        assert pyro.settings.get("validate_poutine") is validated
        assert torch.distributions.Distribution._validate_args is validated
    assert_equal(found, run(lambda: (model, guide), Trace_ELBO(), [call(DATA)] * 4))


@pytest.mark.parametrize("method", ["loss", "loss_and_grads", "differentiable_loss"])
def test_a_loss_that_is_no_number_warns_as_in_stock_pyro(method):
    def model(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("evidence", x.sum())

    elbo, stock = CompiledTrace_ELBO(), Trace_ELBO()
    with pyro.validation_enabled(False):
        for _ in range(4):  # eagerly, recorded, and as a graph
            for loss in (elbo, stock):
                with pytest.warns(UserWarning, match="Encountered NaN: loss") as said:
                    getattr(loss, method)(model, guide, DATA * torch.nan)
                assert {str(warning.message) for warning in said} == {"Encountered NaN: loss"}
    assert elbo.num_graphs(model, guide) == 1


def test_effect_handlers_around_a_step():
    found = []
    for elbo in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        svi = SVI(gaussian, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        values = [svi.step(DATA) for _ in range(3)]
        with ignored(NotCompiled), poutine.scale(scale=3.0):
            values += [svi.step(DATA) for _ in range(2)]
        values += [svi.step(DATA) for _ in range(2)]
        found.append(values)
    assert found[0] == pytest.approx(found[1])


def test_an_effect_handler_around_a_step_is_said():
    elbo = CompiledTrace_ELBO()
    losses(elbo, gaussian)
    with poutine.scale(scale=3.0), pytest.warns(NotCompiled, match=r"an effect handler .* \(ScaleMessenger\)"):
        elbo.loss(gaussian, guide, DATA)


# -- Programs that change ------------------------------------------------------------------------------------------


class Switch(nn.Module):
    """A model with switches of every kind."""

    def __init__(self):
        super().__init__()
        set_global(None, 1.0)
        self.flag = False
        self.settings = {"scale": 1.0, "shifts": [torch.zeros(6)]}
        self.shift = torch.zeros(6)
        self.inner = nn.Sequential(nn.Linear(6, 6))
        self.helper = Helper()
        self.unmentioned = 0

    def forward(self, x):
        x = self.inner(x) + self.shift + self.settings["shifts"][0] + self.helper.shift
        gaussian(x + 1 if self.flag else x, scale=self.settings["scale"] * SCALE)


class Helper:
    def __init__(self):
        self.shift = torch.zeros(6)


def set_global(model, value):
    global SCALE
    SCALE = value


CHANGES = {
    "model.flag: False to True": lambda model: setattr(model, "flag", True),
    "model.settings['scale']: 1.0 to 2.0": lambda model: model.settings.update(scale=2.0),
    "model.settings['shifts'][0]: another object": lambda model: model.settings.update(shifts=[torch.ones(6)]),
    "model.shift: another object": lambda model: setattr(model, "shift", torch.ones(6)),
    "model.helper.shift: another object": lambda model: setattr(model.helper, "shift", torch.ones(6)),
    "model.inner.0.weight: another object": lambda model: model.inner.__setitem__(0, nn.Linear(6, 6, bias=False)),
    "SCALE: 1.0 to 2.0": lambda model: set_global(model, 2.0),
}


@pytest.mark.parametrize(("text", "change"), CHANGES.items(), ids=CHANGES)
def test_a_change_of_a_program_is_noticed_and_said(text, change):
    try:
        with pytest.warns(Recompiled, match=re.escape(text)) as said:
            elbo = agree(Switch, change)
        assert elbo.graphs_of_model == 2
        assert len(said) == 1
    finally:
        set_global(None, 1.0)


def test_a_change_inside_what_was_rebound_is_noticed_too():
    def rebind(model):
        model.helper = Helper()

    with ignored(Recompiled):
        agree(Switch, rebind, lambda model: setattr(model.helper, "shift", torch.ones(6)))


def test_a_change_back_is_no_new_graph():
    with pytest.warns(Recompiled) as said:
        elbo = agree(Switch, CHANGES["model.flag: False to True"], lambda model: setattr(model, "flag", False))
    assert elbo.graphs_of_model == 2
    assert len(said) == 1


def test_what_the_code_does_not_mention_is_no_change():
    assert agree(Switch, lambda model: setattr(model, "unmentioned", 1)).graphs_of_model == 1


def test_a_closure_that_changes():
    scale, shift = 1.0, torch.zeros(6)

    def model(x):
        gaussian(x + shift, scale=scale)

    def change(_):
        nonlocal scale, shift
        scale, shift = 2.0, torch.ones(6)

    def back():
        nonlocal scale, shift
        scale, shift = 1.0, torch.zeros(6)
        return model

    with pytest.warns(Recompiled, match=r"scale in model: 1\.0 to 2\.0.*shift in model: another object"):
        agree(back, change)


@pytest.mark.usefixtures("compiled")
def test_a_tensor_that_is_changed_in_place_is_seen():
    def add(_):
        SHIFT.add_(1.0)

    def reset():
        SHIFT.zero_()
        return lambda x: gaussian(x + SHIFT)

    assert agree(reset, add, add).graphs_of_model == 1


def test_a_program_that_changes_itself_runs_eagerly():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def forward(self, x):
            self.count += 1
            gaussian(x, offset=float(self.count))

    with pytest.warns(NotCompiled, match="changes itself at each call .*model.count: 3 to 4"):
        assert agree(Counting, each=6).graphs_of_model == 0


def test_tensors_out_of_nowhere_are_refused():
    def make():
        batches = iter([DATA + i for i in range(10)])
        return lambda: gaussian(next(batches))

    with pytest.warns(NotCompiled, match=r"a tensor of shape \(6,\) is none that the programs hold"):
        assert CompiledTrace_ELBO().num_graphs(*agree_on_iterator(make)) == 0


def agree_on_iterator(make):
    """An iterator moves on at a recording that fails, as any side effect does; so only the word is checked."""
    model, elbo = make(), CompiledTrace_ELBO()
    for _ in range(3):
        elbo.loss_and_grads(model, guide)
    return model, guide


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_noise_of_others_is_refused(draw):
    def seeded():
        random.seed(0)
        np.random.seed(0)
        return lambda x: gaussian(x, offset=draw())

    with pytest.warns(NotCompiled, match="random numbers of Python or NumPy are drawn; draw them with torch"):
        agree(seeded)


@pytest.mark.usefixtures("compiled")
def test_training_and_evaluation_are_two_graphs_and_no_word():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

        def forward(self, x):
            gaussian(self.network(x.expand(4, 6) * torch.arange(4).unsqueeze(-1)).sum(0))

    models = []

    def make():
        models.append(Dropped())
        return models[-1]

    elbo = agree(make, lambda model: model.eval(), lambda model: model.train(), each=4)
    assert elbo.graphs_of_model == 2
    for name, value in models[0].network.named_buffers():
        torch.testing.assert_close(models[1].network.get_buffer(name), value)
    assert models[0].network[1].num_batches_tracked == 8


def test_a_recording_that_fails_leaves_no_trace():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x):
            x = self.norm(x.expand(4, 6) * torch.arange(4).unsqueeze(-1)).sum(0)
            gaussian(x if x.sum() > 1e3 else x + 1)

    models = []

    def make():
        models.append(Failing())
        return models[-1]

    with pytest.warns(NotCompiled, match="a choice"):
        agree(make)
    for name, value in models[0].norm.named_buffers():
        torch.testing.assert_close(models[1].norm.get_buffer(name), value)


# -- What cannot be compiled ---------------------------------------------------------------------------------------


def branch(x, z):
    return x if z > 0 else x + 1


def size(x, z):
    return x[: 1 + int(z > 0)]


def whole_number(x, z):
    return x + int(x.sum())


def masked(x, z):
    return x[x > z]


def masked_in_steps(x, z):
    return torch.masked_select(x, x > z)


def listed(x, z):
    return x + sum(x.tolist()[:2])


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (branch, "a choice in Python depends on the value of a tensor"),
        (size, "a whole number in Python depends on the value of a tensor"),
        (whole_number, "a whole number in Python depends on the value of a tensor"),
        (masked, "the shape of what aten.index.Tensor returns depends on values"),
        (masked_in_steps, "the shape of what aten.masked_select.default returns depends on values"),
        (listed, "a list in Python depends on the value of a tensor"),
    ],
)
def test_a_structure_that_depends_on_values_runs_eagerly(structure, reason):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        y = structure(x, z)
        pyro.sample("x", dist.Normal(z, 1.0).expand([len(y)]).to_event(1), obs=y)

    place = rf"\(test_contract.py, line {structure.__code__.co_firstlineno + 1}\)"
    with pytest.warns(NotCompiled, match=f"Trace_ELBO runs eagerly: {reason} {place}") as said:
        assert agree(lambda: model, each=5).graphs_of_model == 0
    assert len(said) == 1


def test_without_a_compiler_programs_run_eagerly_and_say_so_once(tmp_path):
    script = """
        import warnings, torch, pyro, pyro.distributions as dist
        from pyro.infer import Trace_ELBO
        from pyro_vae.inference.compiled import CompiledTrace_ELBO

        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)

        def guide(x):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))

        elbo, found = CompiledTrace_ELBO(), []
        for loss in (elbo, Trace_ELBO()):
            torch.manual_seed(0)
            found.append([loss.loss_and_grads(model, guide, torch.ones(4)) for _ in range(4)])
        assert torch.tensor(found[0]).allclose(torch.tensor(found[1])), found
        assert elbo.num_graphs(model, guide) == 0
    """
    environment = {
        **os.environ,
        "CXX": "/nowhere/c++",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "-W", "always::UserWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "NotCompiled" in line]
    assert len(said) == 1, done.stderr
    assert "no C++ compiler was found" in said[0]


def test_automatic_guides_hold_their_model_and_are_let_go():
    elbo = CompiledTrace_ELBO()

    def leave():
        model = Switch()
        found = AutoNormal(model)
        with ignored(Recompiled):
            for _ in range(4):
                elbo.loss_and_grads(model, found, DATA)
        assert elbo.num_graphs(model, found) == 1
        return weakref.ref(found), weakref.ref(model)

    found = leave()
    pyro.clear_param_store()
    gc.collect()
    assert [reference() for reference in found] == [None, None]
    assert not elbo._pairs

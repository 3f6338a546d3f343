"""Programs that change between calls: what is noticed, what is said, and what is no change."""

from __future__ import annotations

import functools
import gc
import random
import re
import weakref

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled, Recompiled
from tests.compiled.agreeing import DATA, agree, gaussian, ignored

pytestmark = pytest.mark.usefixtures("uncompiled")
SCALE = 1.0
SWITCH = "on"
SHIFT = torch.zeros(6)


class Switch(nn.Module):
    """A model with switches of every kind."""

    def __init__(self):
        super().__init__()
        set_global(SCALE=1.0, SWITCH="on")
        self.flag = False
        self.settings = {"scale": 1.0, "shifts": [torch.zeros(6)]}
        self.shift = torch.zeros(6)
        self.inner = nn.Sequential(nn.Linear(6, 6))
        self.helper = Helper()
        self.unmentioned = 0

    def forward(self, x):
        x = self.inner(x) + self.shift + self.settings["shifts"][0] + self.helper.shift
        x = x if SWITCH == "on" else 2 * x
        gaussian(x + 1 if self.flag else x, scale=self.settings["scale"] * SCALE)


class Helper:
    def __init__(self):
        self.shift = torch.zeros(6)


def set_global(**values):
    globals().update(values)


CHANGES = {
    "model.flag: False to True": lambda model: setattr(model, "flag", True),
    "model.settings['shifts']: 1 entries to 2 entries": lambda model: model.settings["shifts"].append(torch.ones(6)),
    "model.inner.0.bias: another object": lambda model: model.inner.__setitem__(0, nn.Linear(6, 6, bias=False)),
    "SWITCH: 'on' to 'off'": lambda model: set_global(SWITCH="off"),
}
TENSORS = [
    lambda model: model.settings.update(shifts=[torch.ones(6)]),
    lambda model: setattr(model, "shift", torch.ones(6)),
    lambda model: setattr(model.helper, "shift", torch.ones(6)),
    lambda model: model.inner.__setitem__(0, nn.Linear(6, 6)),
]
NUMBERS = [
    lambda model, value: model.settings.update(scale=value),
    lambda model, value: set_global(SCALE=value),
]


@pytest.mark.parametrize(("text", "change"), CHANGES.items(), ids=CHANGES)
def test_a_change_of_a_program_is_noticed_and_said(text, change):
    try:
        with pytest.warns(Recompiled, match=re.escape(text)) as said:
            elbo = agree(Switch, change)
        assert elbo.graphs_of_model == 2
        assert len(said) == 1
    finally:
        set_global(SWITCH="on")


@pytest.mark.parametrize("change", TENSORS)
def test_a_tensor_that_is_bound_anew_is_an_input_of_the_same_graph(change):
    assert agree(Switch, change, change).graphs_of_model == 1


@pytest.mark.parametrize("change", NUMBERS)
def test_a_number_that_is_bound_anew_becomes_an_input(change):
    try:
        changes = [functools.partial(change, value=1.1 + 0.1 * i) for i in range(5)]
        assert agree(Switch, *changes).graphs_of_model == 2
        assert agree(Switch, *changes, each=1).graphs_of_model == 1
    finally:
        set_global(SCALE=1.0)


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
    wide, shift = False, torch.zeros(6)

    def model(x):
        gaussian(x + shift, scale=2.0 if wide else 1.0)

    def change(_):
        nonlocal wide, shift
        wide, shift = True, torch.ones(6)

    def back():
        nonlocal wide, shift
        wide, shift = False, torch.zeros(6)
        return model

    with pytest.warns(Recompiled, match=r"the program has changed: wide in model: False to True$"):
        assert agree(back, change).graphs_of_model == 2


@pytest.mark.exhaustive
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

    with pytest.warns(NotCompiled, match=r"batches in model is a list_iterator, which changes without a trace"):
        assert agree(make, args=()).graphs_of_model == 0


def test_a_tensor_out_of_a_cache_is_refused():
    @functools.lru_cache
    def shift():
        return torch.ones(6)

    with pytest.warns(NotCompiled, match=r"a tensor of shape \(6,\) is none that the programs hold"):
        assert agree(lambda: lambda x: gaussian(x + shift())).graphs_of_model == 0


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_noise_of_others_is_refused(draw):
    def seeded():
        random.seed(0)
        np.random.seed(0)
        return lambda x: gaussian(x, offset=draw())

    with pytest.warns(NotCompiled, match="random numbers of Python or NumPy are drawn; draw them with torch"):
        agree(seeded)


@pytest.mark.exhaustive
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

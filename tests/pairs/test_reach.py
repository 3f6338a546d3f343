"""Modules are found however a program reaches them, and are treated alike."""

from __future__ import annotations

import argparse
import types
from collections import deque
from dataclasses import dataclass
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import nn

from pyro_vae.pairs import Pair
from pyro_vae.pairs.reach import modules_of, signature_of

HELD = nn.BatchNorm1d(3)


def uses_global(x):
    return HELD(x)


class Methods(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.beside = [nn.Dropout(0.5)]  # which torch does not know of

    def run(self, x):
        return self.beside[0](self.norm(x))


class Caller:
    def __init__(self, *parts):
        self.parts = {"all": list(parts)}

    def __call__(self, x):
        return uses_global(x)


def closing(module):
    def program(x):
        def inner():
            return module(x)

        return inner()

    return program


def with_default(x, module=HELD):
    return module(x)


def test_every_way_to_a_module():
    norm, methods = nn.BatchNorm1d(3), Methods()
    assert modules_of(norm) == {"": norm}
    assert modules_of(closing(norm)) == {"module": norm}
    assert modules_of(methods.run) == {"": methods, "beside.0": methods.beside[0]}
    assert modules_of(uses_global) == {"HELD": HELD}
    assert modules_of(partial(with_default, module=norm)) == {"0": HELD, "module": norm}
    assert modules_of(Caller(norm)) == {"parts.all.0": norm, "uses_global.HELD": HELD}
    assert list(modules_of(config_enumerate(closing(norm))).values()) == [norm]
    assert list(modules_of(pyro.poutine.scale(closing(norm), scale=0.5)).values()) == [norm]
    assert modules_of(lambda x: torch.nn.functional.relu(x)) == {}


class OfClass:
    shared = nn.Linear(1, 1)

    def guide(self, x):
        return self.shared(x)

    @classmethod
    def of_class(cls, x):
        return cls.shared(x)


@dataclass(slots=True)
class InSlots:
    held: nn.Module

    def guide(self, x):
        return self.held(x)


class Calling:
    """Its guide calls another method, which asks a property, which reads a global."""

    @property
    def encoder(self):
        return HELD

    def encode(self, x):
        return self.encoder(x)

    def guide(self, x):
        return self.encode(x)

    def unused(self, x):
        return OfClass.shared(x)


class CallingModule(nn.Module):
    def forward(self, x):
        return self.encode(x)

    def encode(self, x):
        return HELD(x)


NAMESPACE = types.SimpleNamespace(net=HELD)
OPTIONS = argparse.Namespace(net=HELD)
QUEUE = deque([HELD])
FILE = types.ModuleType("my_networks")
FILE.net = HELD


@pytest.mark.parametrize(
    ("program", "module"),
    [
        (lambda x: NAMESPACE.net(x), HELD),
        (lambda x: OPTIONS.net(x), HELD),
        (lambda x: QUEUE[0](x), HELD),
        (lambda x: FILE.net(x), HELD),
        (lambda x: OfClass.shared(x), OfClass.shared),
        (OfClass().guide, OfClass.shared),
        (OfClass.of_class, OfClass.shared),
        (InSlots(HELD).guide, HELD),
        (Calling().guide, HELD),
        (CallingModule(), HELD),
    ],
)
def test_a_module_in_a_holder_or_a_method_that_is_called(program, module):
    found = modules_of(program)
    assert [part for part in found.values() if part is not program] == [module]


def test_a_program_that_holds_itself_is_no_endless_walk():
    holder = Caller()
    holder.parts["all"].append(holder)
    assert modules_of(holder) == {"uses_global.HELD": HELD}


def pair_of(*modules):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, 3), 1.0).to_event(1), obs=x)

    def guide(x):
        for module in modules:
            x = module(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[..., 0], 1.0))

    return Pair(model, guide)


def test_what_is_reached_is_evaluated_for_a_while():
    norm = nn.BatchNorm1d(3)
    pair = pair_of(norm)
    with pair.evaluating():
        assert not norm.training
    assert norm.training
    pair.probe(torch.randn(4, 3))
    assert norm.num_batches_tracked == 0


def test_what_is_frozen_stays_in_evaluation():
    norm, frozen = nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval()
    pair = pair_of(norm, frozen)
    pair.train()
    assert (norm.training, frozen.training) == (True, False)
    both = pair_of(nn.BatchNorm1d(3).eval())  # all of them: left so by something before
    both.train()
    assert next(iter(both.all_modules().values())).training


def test_buffers_are_part_of_the_state():
    norm, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    norm(torch.randn(20, 3) + 5)
    first, second = pair_of(norm), pair_of(other)
    for pair in (first, second):
        pair.probe(torch.randn(4, 3))
    state = first.state_dict()
    assert {name for name in state if "running" in name} == {
        "guide.modules.0.running_mean",
        "guide.modules.0.running_var",
    }
    second.load_state_dict(state)
    assert torch.equal(other.running_mean, norm.running_mean)
    earlier = {name: value for name, value in state.items() if "running" not in name}
    second.load_state_dict(earlier)  # which earlier versions wrote


def test_what_nothing_trains_is_named():
    linear = nn.Linear(3, 3)
    pair = pair_of(linear)
    pair.probe(torch.randn(4, 3))
    assert pair.untrained() == ["guide.modules.0"]


@pytest.mark.parametrize("stated", [False, True])
def test_a_module_stated_to_pyro_is_trained(stated):
    linear = nn.Linear(3, 3)

    def guide(x):
        if stated:
            pyro.module("linear", linear)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(linear(x)[..., 0], 1.0))

    pair = Pair(pair_of().model, guide)
    pair.probe(torch.randn(4, 3))
    assert pair.untrained() == ([] if stated else ["guide.linear"])
    names = {"param.linear$$$weight", "param.linear$$$bias"} if stated else {"guide.linear.weight", "guide.linear.bias"}
    assert pair.state_dict().keys() == names


@pytest.mark.parametrize("handler", [poutine.scale(scale=0.5), poutine.mask(mask=torch.tensor(True)), poutine.block()])
def test_what_a_decorated_program_takes(handler):
    @handler
    def labelled(x, y=None):
        return x

    @handler
    def plain(x):
        return x

    x = torch.ones(2)
    assert len(Pair(labelled, labelled).arguments(x, x)) == 2
    assert len(Pair(labelled, plain).arguments(x, x)) == 1
    assert list(signature_of(labelled).parameters) == ["x", "y"]
    assert list(signature_of(partial(labelled, y=None)).parameters) == ["x", "y"]
    assert list(signature_of(partial(labelled, 1.0)).parameters) == ["y"]

"""What programs take from libraries, and may be given another of: functions, classes, modules, settings."""

from __future__ import annotations

import functools
import importlib
import logging
import math
import operator
import sqlite3
import sys
import types
from contextlib import contextmanager

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.tensor_utils import safe_cholesky
from torch import nn

from pyro_vae.compiled import NotCompiled, Recompiled
from tests.compiled.agreeing import DATA, agree, gaussian, ignored

pytestmark = pytest.mark.usefixtures("uncompiled")

ACTIVATION = torch.tanh
LIKELIHOOD = dist.Normal
MATHEMATICS = math
SIGMA = 1.0
TABLE = {"scale": 1.0}
VIEW = types.MappingProxyType(TABLE)
VALUES = TABLE.values()
LOOK_UP = TABLE.get
GET = operator.attrgetter("scale")
SETTINGS = types.SimpleNamespace(scale=1.0)
MEMORY = bytearray(b"\x01")
SEEN = memoryview(MEMORY).toreadonly()
MATRIX = torch.tensor([[1.0, 0.9], [0.9, 1.0]])


class Choices:
    likelihood = dist.Normal
    scale = 1.0


CHOICES = Choices()


class Rounded(torch.autograd.Function):
    slope = 1.0

    @staticmethod
    def forward(context, value):
        return (4 * value).round() / 4

    @staticmethod
    def backward(context, gradient):
        return gradient * Rounded.slope


@contextmanager
def scaled():
    with pyro.poutine.scale(scale=SIGMA):
        yield


@torch.no_grad()
def shifted(x):
    return x + SIGMA


@functools.singledispatch
def dispatched(value):
    return 1.0


def likelihood_of(kind, x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", kind(z, 1.0).expand([len(x)]).to_event(1), obs=x)


def within(x):
    with scaled():
        gaussian(x)


def rounding(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(Rounded.apply(z), 1.0).expand([len(x)]).to_event(1), obs=x)


def bind(**values):
    globals().update(values)


PROGRAMS = {  # a program, what is changed, and how that is undone
    "function": (
        lambda x: gaussian(ACTIVATION(x)),
        lambda: bind(ACTIVATION=torch.sin),
        lambda: bind(ACTIVATION=torch.tanh),
    ),
    "class": (
        lambda x: likelihood_of(LIKELIHOOD, x),
        lambda: bind(LIKELIHOOD=dist.Laplace),
        lambda: bind(LIKELIHOOD=dist.Normal),
    ),
    "class of a class": (
        lambda x: likelihood_of(Choices.likelihood, x),
        lambda: setattr(Choices, "likelihood", dist.Laplace),
        lambda: setattr(Choices, "likelihood", dist.Normal),
    ),
    "default of a class": (
        lambda x: gaussian(x, scale=CHOICES.scale),
        lambda: setattr(CHOICES, "scale", 3.0),
        lambda: vars(CHOICES).clear(),
    ),
    "module": (
        lambda x: gaussian(x, scale=MATHEMATICS.cos(0.5)),
        lambda: bind(MATHEMATICS=types.SimpleNamespace(cos=math.exp)),
        lambda: bind(MATHEMATICS=math),
    ),
    "patched": (
        lambda x: gaussian(torch.cos(x)),
        lambda: setattr(torch, "cos", torch.sin),
        lambda cos=torch.cos: setattr(torch, "cos", cos),
    ),
    "setting of a module": (
        lambda x: gaussian(x, scale=sys.scale_of_a_test),
        lambda: setattr(sys, "scale_of_a_test", 2.0),
        lambda: setattr(sys, "scale_of_a_test", 1.0),
    ),
    "jitter": (
        lambda x: gaussian(x, scale=safe_cholesky(MATRIX)[1, 1]),
        lambda: pyro.settings.set(cholesky_relative_jitter=4e5),
        lambda: pyro.settings.set(cholesky_relative_jitter=4.0),
    ),
    "context manager": (within, lambda: bind(SIGMA=2.0), lambda: bind(SIGMA=1.0)),
    "decorated": (lambda x: gaussian(shifted(x)), lambda: bind(SIGMA=2.0), lambda: bind(SIGMA=1.0)),
    "dispatched": (
        lambda x: gaussian(x, scale=dispatched(1)),
        lambda: dispatched.register(int, lambda value: 2.0),
        lambda: dispatched.register(int, lambda value: 1.0),
    ),
    "view": (
        lambda x: gaussian(x, scale=VIEW["scale"]),
        lambda: TABLE.update(scale=2.0),
        lambda: TABLE.update(scale=1.0),
    ),
    "values": (
        lambda x: gaussian(x, scale=sum(VALUES)),
        lambda: TABLE.update(scale=2.0),
        lambda: TABLE.update(scale=1.0),
    ),
    "method of a dictionary": (
        lambda x: gaussian(x, scale=LOOK_UP("scale")),
        lambda: TABLE.update(scale=2.0),
        lambda: TABLE.update(scale=1.0),
    ),
    "getter": (
        lambda x: gaussian(x, scale=GET(SETTINGS)),
        lambda: setattr(SETTINGS, "scale", 2.0),
        lambda: setattr(SETTINGS, "scale", 1.0),
    ),
    "backward pass": (rounding, lambda: setattr(Rounded, "slope", 0.1), lambda: setattr(Rounded, "slope", 1.0)),
}


@pytest.mark.parametrize(
    ("program", "change", "undo"),
    [
        pytest.param(*programs, id=name, marks=() if number % 3 == 0 else pytest.mark.exhaustive)
        for number, (name, programs) in enumerate(PROGRAMS.items())
    ],
)
def test_another_of_a_library_s_is_noticed(program, change, undo):
    def make():
        undo()
        return program

    try:
        with ignored(Recompiled):
            assert agree(make, lambda _: change()).graphs_of_model <= 2
    finally:
        undo()


class Log:
    def __init__(self):
        self.base = sqlite3.connect(":memory:")
        self.base.execute("create table scales (scale real)")
        self.base.execute("insert into scales values (1.0)")

    def scale(self):
        return self.base.execute("select scale from scales").fetchone()[0]


LOG = Log()
LOGGER = logging.getLogger("tests.compiled")
MODULE = types.ModuleType("settings_of_a_test")
OUTSIDE = {  # a number, and what is said of reading it
    "threads": (lambda: float(torch.get_num_threads()), "a setting of the process"),
    "precision": (lambda: float(len(torch.get_float32_matmul_precision())), "a setting of the process"),
    "backend": (lambda: 1.0 + torch.backends.mkldnn.enabled, "a setting of the process"),
    "seed": (lambda: 1.0 + torch.initial_seed() % 3, "a setting of the process"),
    "logger": (lambda: 1.0 + LOGGER.isEnabledFor(logging.DEBUG), "a setting of the process"),
    "NumPy's errors": (lambda: float(len(np.geterr()["over"])), "a setting of the process"),
    "imported": (lambda: importlib.import_module("settings_of_a_test").scale, "a module by its name"),
    "database": (LOG.scale, "a Connection of sqlite3"),
    "text of a tensor": (lambda: float(repr(DATA.max())[7:-1]), "the value of a tensor"),
    "memory": (lambda: float(SEEN[0]), "changes without a trace"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "reason"), OUTSIDE.values(), ids=OUTSIDE)
def test_what_is_asked_of_the_process_is_not_frozen(number, reason, monkeypatch):
    MODULE.scale = 1.0
    monkeypatch.setitem(sys.modules, MODULE.__name__, MODULE)
    with pytest.warns(NotCompiled, match=reason):
        agree(lambda: lambda x: gaussian(x, scale=number()))


def test_a_library_s_own_settings_are_no_concern():
    """Layers that look at the backends themselves are compiled as ever."""
    layer = nn.GRU(1, 1, batch_first=True)
    assert agree(lambda: lambda x: gaussian(layer(x[None, :, None])[0][0, :, 0].detach())).graphs_of_model == 1

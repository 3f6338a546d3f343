"""Programs that somebody changes between two calls: what they hold, read, or are."""

from __future__ import annotations

import functools
import weakref
from collections import deque

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from tests.compiled.odd_programs.program import NUM_CALLS, Program, base, case


@case("of a kind of its own")
def numpy_held_inplace():
    a = np.arange(6, dtype=np.float32)

    def before(i):
        a[:] = i

    return Program(lambda x: base(x + torch.tensor(a)), before=before)


@case("of a kind of its own")
def numpy_from_numpy():
    a = np.arange(6, dtype=np.float32)

    def before(i):
        a[:] = i

    return Program(lambda x: base(x + torch.from_numpy(a)), before=before)


@case()
def tensor_attr_param():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.ones(6)

        def forward(self, x):
            base(x * self.w)

    m = M()

    def before(i):
        m.w = torch.ones(6) * i

    return Program(m, before=before)


@case()
def data_reassign():
    w = torch.ones(6)

    def before(i):
        w.data = torch.full((6,), float(i))

    return Program(lambda x: base(x * w), before=before)


@case()
def data_reshape():
    w = torch.ones(6)

    def before(i):
        w.data = torch.full((6 if i % 2 else 1,), float(i))

    return Program(lambda x: base(x * w), before=before)


@case()
def global_getattr():
    class M:
        a = 1.0
        b = 5.0

        def __init__(self):
            self.names = ["a", "b"]
            self.which = "a"

        def __call__(self, x):
            base(x, offset=getattr(self, self.which))

    m = M()

    def before(i):
        m.which = "ab"[i // 6 % 2]
        m.a = 1.0 + i // 3

    return Program(m, before=before)


@case(quick=True)
def getattr_fstring():
    class M:
        def __init__(self):
            self.p_0 = 1.0
            self.p_1 = 2.0

        def __call__(self, x):
            for j in range(2):
                x = x + getattr(self, f"p_{j}")
            base(x)

    m = M()

    def before(i):
        m.p_1 = float(i // 4)

    return Program(m, before=before)


@case()
def property_():
    class M:
        def __init__(self):
            self._s = 1.0

        @property
        def s(self):
            return self._s * 2

        def __call__(self, x):
            base(x, offset=self.s)

    m = M()

    def before(i):
        m._s = float(i // 4)

    return Program(m, before=before)


@case()
def class_attr():
    class M:
        s = 1.0

        def __call__(self, x):
            base(x, offset=self.s)

    m = M()

    def before(i):
        M.s = float(i // 5)

    return Program(m, before=before)


@case()
def monkeypatched_method():
    class M:
        def f(self, x):
            return x

        def __call__(self, x):
            base(self.f(x))

    m = M()

    def before(i):
        if i == 6:
            M.f = lambda self, x: x * 3

    return Program(m, before=before)


@case()
def default_args():
    def m(x, s=1.0):
        base(x, offset=s)

    def before(i):
        m.__defaults__ = (float(i // 5),)

    return Program(m, before=before)


@case()
def behind_a_weak_reference():
    class Settings:
        offset = 0.0

    settings = Settings()
    known, named = weakref.ref(settings), weakref.WeakValueDictionary(settings=settings)

    def before(i):
        settings.offset = float(i // 5)

    return Program(lambda x: base(x, offset=known().offset + named["settings"].offset), before=before)


@case()
def attribute_of_a_class_by_its_class():
    class Kind(type):
        @property
        def offset(cls):
            return cls._offset

    class Settings(metaclass=Kind):
        _offset = 0.0

    def before(i):
        Settings._offset = float(i // 5)

    return Program(lambda x: base(x, offset=Settings.offset), before=before)


@case()
def trainable_new_param():
    flag = {"extra": False}

    def m(x):
        if flag["extra"]:
            x = x + pyro.param("extra", torch.zeros(6))
        base(x)

    def before(i):
        flag["extra"] = i >= 6

    return Program(m, before=before)


@case()
def swapped_submodule():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 6)

        def forward(self, x):
            pyro.module("m", self)
            base(self.net(x))

    m = M()

    def before(i):
        if i == 6:
            m.net = nn.Linear(6, 6)

    return Program(m, before=before)


@case()
def load_state_dict():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def before(i):
        if i == 6:
            net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})

    return Program(m, before=before)


@case()
def to_double():
    net = nn.Linear(6, 6)

    def m(x):
        base(net(x.to(net.weight.dtype)).float())

    def before(i):
        if i == 6:
            net.double()

    return Program(m, before=before)


@case()
def dataframe_changed_inside():
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"a": np.arange(6.0), "b": list("abcdef")})

    def before(i):
        if i == 6:
            df.loc[2, "a"] = 7.0

    return Program(lambda x: base(x + torch.tensor(df["a"].values, dtype=torch.float32)), before=before)


@case()
def delete_param():
    def m(x):
        base(x + pyro.param("w", lambda: torch.randn(6)))

    def before(i):
        if i == 7:
            del pyro.get_param_store()["w"]

    return Program(m, before=before)


@case()
def frozen_half():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def before(i):
        net.weight.requires_grad_(i < 5 or i > 9)

    return Program(m, before=before)


@case()
def grad_set_by_hand():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def before(i):
        if i % 3 == 0:
            net.weight.grad = None

    return Program(m, before=before)


@case()
def set_and_frozenset():
    s = {"a"}

    def before(i):
        if i == 6:
            s.add("b")

    return Program(lambda x: base(x * len(s)), before=before)


@case(quick=True)
def empty_dictionary():
    found = {}

    def before(i):
        if i > 5:
            found["scale"] = 2.0 + i

    return Program(lambda x: base(x, scale=found.get("scale", 1.0)), before=before)


@case(quick=True)
def global_that_comes_into_being():
    space = {"base": base}
    source = """
def model(x):
    try:
        base(x, scale=late)
    except NameError:
        base(x)
"""
    exec(source, space)

    def before(i):
        if i == 6:
            space["late"] = 3.0

    return Program(space["model"], before=before)


@case()
def class_attribute_that_comes_into_being():
    class Base:
        scale = 1.0

        def __call__(self, x):
            base(x, scale=self.scale)

    class Derived(Base):
        pass

    def before(i):
        if i == 6:
            Derived.scale = 3.0

    return Program(Derived(), before=before)


@case()
def deque_of_numbers():
    schedule = deque([1.0, 2.0, 3.0])
    return Program(lambda x: base(x, scale=schedule[0]), before=lambda i: schedule.rotate(-1))


def patched(space, name, other, at=5):
    """Put another function in the place of a library's, before a call, and the old one back after the last."""
    old, own = getattr(space, name), name in vars(space)

    def before(i):
        if i == at:
            setattr(space, name, functools.partialmethod(other, old) if isinstance(space, type) else other)
        if i == NUM_CALLS - 1:
            setattr(space, name, old) if own else delattr(space, name)

    return before


@case(quick=True)
def method_of_a_distribution():
    before = patched(dist.Normal, "log_prob", lambda self, old, value: 2 * old(self, value))
    return Program(base, before=before)


@case()
def method_of_a_layer():
    net = nn.Linear(6, 6)
    before = patched(nn.Linear, "forward", lambda self, old, x: 3 * old(self, x))
    return Program(lambda x: base(net(x)), before=before)


@case()
def function_in_c_of_a_layer():
    net = nn.Softplus()
    before = patched(nn.functional, "softplus", lambda x, *options: 3 * x)
    return Program(lambda x: base(net(x)), before=before)

"""Programs that do odd things: each gives what stock Pyro gives, step after step, compiled or eagerly with its reason.

A case gives model, guide, and the arguments of the i-th call; perhaps the optimizer, and what is read off afterwards.
"""

from __future__ import annotations

import collections
import contextvars
import datetime
import enum
import functools
import itertools
import logging
import math
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.utils.checkpoint import checkpoint

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled, Recompiled

X = torch.linspace(-1, 2, 6)
MAPPED = Path(tempfile.mkdtemp()) / "mapped.npy"
np.save(MAPPED, np.arange(6, dtype=np.float32))
CASES, REASONS = {}, {}
QUICK = {
    "aux_attr",
    "float_math",
    "getattr_fstring",
    "int_isinstance",
    "iter_cycle",
    "memmap_fail",
    "prints",
    "reseed",
    "terminal",
}


def case(reason=None):
    def register(make):
        CASES[make.__name__], REASONS[make.__name__] = make, reason
        return make

    return register


def base(x, offset=0.0, scale=1.0):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + offset, scale).expand([len(x)]).to_event(1), obs=x)


def guide(*args, **kwargs):
    return pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))


class IterObj:
    def __init__(self):
        self.n = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        return float(self.n)


@case("a generator of random numbers of its own")
def np_generator():
    rng = np.random.default_rng(0)
    return (lambda x: base(x, offset=float(rng.normal()))), guide, lambda i: ((X,), {})


@case("a generator of random numbers of its own")
def py_random_object():
    rng = random.Random(0)
    return (lambda x: base(x, offset=rng.random())), guide, lambda i: ((X,), {})


@case("a generator of random numbers of its own is drawn from")
def torch_generator():
    g = torch.Generator().manual_seed(0)
    return (lambda x: base(x + torch.randn(6, generator=g))), guide, lambda i: ((X,), {})


@case("random numbers of Python or NumPy")
def np_global():
    np.random.seed(0)
    return (lambda x: base(x, offset=np.random.rand())), guide, lambda i: ((X,), {})


@case("random numbers of Python or NumPy")
def py_global():
    random.seed(0)
    return (lambda x: base(x, offset=random.gauss(0, 1))), guide, lambda i: ((X,), {})


@case("its graph gave")
def reseed():
    def m(x):
        torch.manual_seed(1)
        base(x + torch.randn(6))

    return m, guide, lambda i: ((X,), {})


@case("the generator is seeded")
def pyro_reseed():
    def m(x):
        pyro.set_rng_seed(3)
        base(x)

    return m, guide, lambda i: ((X,), {})


@case("its graph gave")
def fork_rng():
    def m(x):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            n = torch.randn(6)
        base(x + n)

    return m, guide, lambda i: ((X,), {})


@case("it in model is a cycle")
def iter_cycle():
    it = itertools.cycle([1.0, 2.0, 3.0])
    return (lambda x: base(x, offset=next(it))), guide, lambda i: ((X,), {})


@case("it in model is a generator")
def gen_obj():
    def g():
        while True:
            yield 1.0
            yield 2.0

    it = g()
    return (lambda x: base(x, offset=next(it))), guide, lambda i: ((X,), {})


@case("it in model is a count")
def count_obj():
    it = itertools.count()
    return (lambda x: base(x, offset=float(next(it)))), guide, lambda i: ((X,), {})


@case("changes itself")
def deque_rot():
    d = collections.deque([1.0, 2.0, 3.0])

    def m(x):
        d.rotate(1)
        base(x, offset=d[0])

    return m, guide, lambda i: ((X,), {})


@case("each run changes the program")
def list_append():
    calls_made = []

    def m(x):
        calls_made.append(1)
        base(x, offset=float(len(calls_made)))

    return m, guide, lambda i: ((X,), {})


@case("changes itself")
def dict_counter():
    c = collections.Counter()

    def m(x):
        c["n"] += 1
        base(x, offset=float(c["n"] % 3))

    return m, guide, lambda i: ((X,), {})


@case("changes itself")
def own_iter():
    it = IterObj()
    return (lambda x: base(x, offset=next(it))), guide, lambda i: ((X,), {})


@case("it prints or logs")
def prints():
    def m(x):
        print("hello", end="")
        base(x)

    return m, guide, lambda i: ((X,), {})


@case("a choice in Python")
def value_if():
    def m(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        s = 2.0 if z > 0 else 1.0
        pyro.sample("x", dist.Normal(z, s).expand([len(x)]).to_event(1), obs=x)

    return m, guide, lambda i: ((X,), {})


@case("a choice in Python")
def while_loop():
    def m(x):
        t = torch.tensor(0.0)
        while t < x.abs().sum():
            t = t + 1.0
        base(x, offset=t)

    return m, guide, lambda i: ((X * (1 + i),), {})


@case("a choice in Python")
def geometric():
    def m(x):
        n = 0
        while pyro.sample(f"f{n}", dist.Bernoulli(0.5)):
            n += 1
        base(x)

    def g(x):
        n = 0
        while pyro.sample(f"f{n}", dist.Bernoulli(pyro.param("p", torch.tensor(0.4)))):
            n += 1
        guide(x)

    return m, g, lambda i: ((X,), {})


@case()
def expanded():
    e = torch.zeros(1).expand(6)
    return (lambda x: base(x + e)), guide, lambda i: ((X,), {})


@case()
def expanded_arg():
    return base, guide, lambda i: ((torch.full((1,), 1.0 + i).expand(6),), {})


@case()
def memmap():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t = torch.from_numpy(np.load(MAPPED, mmap_mode="r"))
    return (lambda x: base(x + t)), guide, lambda i: ((X,), {})


@case("a choice in Python")
def memmap_fail():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t = torch.from_numpy(np.load(MAPPED, mmap_mode="r"))

    def m(x):
        if x.sum() > -100:
            x = x + t
        base(x)

    return m, guide, lambda i: ((X,), {})


@case("a gradient is sparse")
def sparse_embedding():
    emb = nn.Embedding(5, 1, sparse=True)

    def g(x):
        pyro.module("emb", emb)
        return pyro.sample("z", dist.Normal(emb(torch.tensor(2)).squeeze(), 1.0))

    return base, g, lambda i: ((X,), {}), "sgd"


@case("is compiled by itself")
def compiled_submodule():
    net = torch.compile(nn.Linear(6, 6), backend="eager")
    return (lambda x: base(net(x))), guide, lambda i: ((X,), {})


@case()
def double_backward():
    w = nn.Parameter(torch.ones(6))

    def m(x):
        pyro.param("w", w)
        y = (pyro.param("w") ** 3).sum()
        (gr,) = torch.autograd.grad(y, pyro.param("w").unconstrained() if False else pyro.param("w"), create_graph=True)
        base(x + gr)

    return m, guide, lambda i: ((X,), {})


@case("reads the values")
def packed():
    rnn = nn.RNN(1, 2, batch_first=True)

    def m(x, lengths):
        p = nn.utils.rnn.pack_padded_sequence(x.reshape(2, 3, 1), lengths, batch_first=True, enforce_sorted=False)
        _, h = rnn(p)
        base(x + h.sum())

    return m, guide, lambda i: ((X, torch.tensor([3, 1 + i % 3])), {})


@case("reads the values")
def packed_held():
    rnn = nn.LSTM(1, 2, batch_first=True)
    lengths = torch.tensor([3, 2])

    def m(x):
        p = nn.utils.rnn.pack_padded_sequence(x.reshape(2, 3, 1), lengths, batch_first=True)
        o, (h, c) = rnn(p)
        o, _ = nn.utils.rnn.pad_packed_sequence(o, batch_first=True)
        base(x + h.sum() + o.sum())

    return m, guide, lambda i: ((X,), {})


@case("reads the values")
def tensor_split():
    def m(x, idx):
        a = torch.tensor_split(x, idx)
        base(torch.cat([a[0] * 2, a[1]]))

    return m, guide, lambda i: ((X, torch.tensor([1 + i % 4])), {})


@case()
def split_sizes():
    def m(x, sizes):
        a = x.split(sizes)
        base(torch.cat([a[0] * 2, a[1]]))

    return m, guide, lambda i: ((X, [2, 4] if i % 2 else [3, 3]), {})


@case()
def bool_arg():
    return (lambda x, flag: base(x + 1 if flag else x)), guide, lambda i: ((X, i % 2 == 0), {})


@case()
def str_arg():
    return (lambda x, mode="a": base(x + 1 if mode == "a" else x)), guide, lambda i: ((X,), {"mode": "ab"[i % 2]})


@case()
def int_pow():
    return (lambda x, k: base(x**k)), guide, lambda i: ((X, i), {})


@case()
def int_range():
    def m(x, k):
        for _ in range(k):
            x = x * 1.1
        base(x)

    return m, guide, lambda i: ((X, i % 3), {})


@case("argument 2: its graph gave")
def int_isinstance():
    def m(x, k):
        base(x * (2.0 if isinstance(k, float) else 3.0) + k)

    return m, guide, lambda i: ((X, float(i)), {})


@case("argument 2: a number in Python")
def float_math():
    return (lambda x, k: base(x * math.exp(-k))), guide, lambda i: ((X, 0.1 * i), {})


@case("argument 2: a choice in Python")
def float_min():
    return (lambda x, k: base(x * min(1.0, k))), guide, lambda i: ((X, 0.2 * i), {})


@case("argument 2: a choice in Python")
def float_cmp():
    return (lambda x, k: base(x if k > 0.5 else -x)), guide, lambda i: ((X, 0.1 * i), {})


@case()
def numpy_f64():
    return (lambda x, k: base(x * k)), guide, lambda i: ((X, np.float64(0.1 * i)), {})


@case("of a kind of its own")
def numpy_batch():
    return (lambda x: base(torch.tensor(x))), guide, lambda i: ((np.arange(6, dtype=np.float32) + i,), {})


@case("of a kind of its own")
def numpy_held_inplace():
    a = np.arange(6, dtype=np.float32)

    def calls(i):
        a[:] = i
        return ((X,), {})

    return (lambda x: base(x + torch.tensor(a))), guide, calls


@case("of a kind of its own")
def numpy_from_numpy():
    a = np.arange(6, dtype=np.float32)

    def calls(i):
        a[:] = i
        return ((X,), {})

    return (lambda x: base(x + torch.from_numpy(a))), guide, calls


@case("binds guide.trace to another object")
def trace_kept():
    class G:
        def inner(self, x):
            return guide(x)

        def __call__(self, x):
            self.trace = poutine.trace(self.inner).get_trace(x)
            return self.trace.nodes["z"]["value"]

    return base, G(), lambda i: ((X,), {})


@case()
def tensor_attr_param():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.ones(6)

        def forward(self, x):
            base(x * self.w)

    m = M()

    def calls(i):
        m.w = torch.ones(6) * i
        return ((X,), {})

    return m, guide, calls


@case()
def data_reassign():
    w = torch.ones(6)

    def calls(i):
        w.data = torch.full((6,), float(i))
        return ((X,), {})

    return (lambda x: base(x * w)), guide, calls


@case()
def data_reshape():
    w = torch.ones(6)

    def calls(i):
        w.data = torch.full((6 if i % 2 else 1,), float(i))
        return ((X,), {})

    return (lambda x: base(x * w)), guide, calls


@case("is none that the programs hold")
def lru():
    @functools.lru_cache
    def c(n):
        return torch.arange(float(n))

    return (lambda x: base(x + c(6))), guide, lambda i: ((X,), {})


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

    def calls(i):
        m.which = "ab"[i // 6 % 2]
        m.a = 1.0 + i // 3
        return ((X,), {})

    return m, guide, calls


@case()
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

    def calls(i):
        m.p_1 = float(i // 4)
        return ((X,), {})

    return m, guide, calls


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

    def calls(i):
        m._s = float(i // 4)
        return ((X,), {})

    return m, guide, calls


@case()
def class_attr():
    class M:
        s = 1.0

        def __call__(self, x):
            base(x, offset=self.s)

    m = M()

    def calls(i):
        M.s = float(i // 5)
        return ((X,), {})

    return m, guide, calls


@case()
def monkeypatched_method():
    class M:
        def f(self, x):
            return x

        def __call__(self, x):
            base(self.f(x))

    m = M()

    def calls(i):
        if i == 6:
            M.f = lambda self, x: x * 3
        return ((X,), {})

    return m, guide, calls


@case()
def default_args():
    def m(x, s=1.0):
        base(x, offset=s)

    def calls(i):
        m.__defaults__ = (float(i // 5),)
        return ((X,), {})

    return m, guide, calls


@case()
def aux_attr():
    class M:
        def __call__(self, x):
            self.kl = (x * 2).sum()
            self.terms = {"a": x.mean(), "n": len(x)}
            base(x)

    m = M()
    return m, guide, lambda i: ((X + i,), {}), "adam", lambda: (m.kl.item(), m.terms["a"].item(), m.terms["n"])


@case()
def ema_buffer():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ema", torch.zeros(6))

        def forward(self, x):
            self.ema = 0.9 * self.ema + 0.1 * x
            base(x - self.ema)

    m = M()
    return m, guide, lambda i: ((X + i,), {}), "adam", lambda: m.ema.sum().item()


@case("changes itself")
def count_only():
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 0

        def forward(self, x):
            self.n += 1
            base(x)

    m = M()
    return m, guide, lambda i: ((X,), {}), "adam", lambda: m.n


@case()
def inplace_arg():
    def m(x):
        x.mul_(0.9)
        base(x)

    y = X.clone()
    return m, guide, lambda i: ((y,), {}), "adam", lambda: y.sum().item()


@case()
def empty_batch():
    return (lambda x: base(x)), guide, lambda i: ((X[: 6 if i % 3 else 2],), {})


@case("backward depends")
def hook_on_z():
    seen = []

    def g(x):
        z = guide(x)
        z.register_hook(lambda gr: seen.append(gr.item()))
        return z

    return base, g, lambda i: ((X,), {}), "adam", lambda: len(seen)


@case("each run changes the program")
def forward_hook():
    net = nn.Linear(6, 6)
    seen = []
    net.register_forward_hook(lambda m, i, o: seen.append(o.sum().item()))
    return (lambda x: base(net(x))), guide, lambda i: ((X,), {}), "adam", lambda: len(seen)


@case("has a hook on its backward pass")
def backward_hook():
    net = nn.Linear(6, 6)
    seen = []
    net.register_full_backward_hook(lambda m, i, o: seen.append(1))

    def m(x):
        pyro.module("net", net)
        base(net(x))

    return m, guide, lambda i: ((X,), {}), "adam", lambda: len(seen)


@case("the generator is seeded")
def checkpointed():
    net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))

    def m(x):
        pyro.module("net", net)
        base(checkpoint(net, x, use_reentrant=False))

    return m, guide, lambda i: ((X,), {})


@case()
def custom_function():
    class F(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 3

    def m(x):
        base(x + F.apply(pyro.param("w", torch.ones(6))))

    return m, guide, lambda i: ((X,), {})


@case("it reads a clock")
def time_based():
    t0 = time.time()
    return (lambda x: base(x * (1 if time.time() > t0 - 1 else 2))), guide, lambda i: ((X,), {})


@case("it reads a clock")
def date_based():
    return (lambda x: base(x * (1 if datetime.datetime.now().year > 2000 else 2))), guide, lambda i: ((X,), {})


@case("it writes to a file or a terminal")
def terminal():
    return (lambda x: (sys.stdout.write("hello"), base(x))), guide, lambda i: ((X,), {})


@case("it prints or logs")
def print_by_another_name():
    echo = print
    return (lambda x: (echo(len(x)), base(x))), guide, lambda i: ((X,), {})


@case("it opens a file")
def file_written():
    path = Path(tempfile.mkdtemp()) / "calls"

    def m(x):
        with path.open("a") as file:
            file.write("called\n")
        base(x)

    return m, guide, lambda i: ((X,), {}), "adam", lambda: len(path.read_text())


@case("random numbers of the system")
def system_noise():
    return (lambda x: base(x if os.urandom(1)[0] < 256 else -x)), guide, lambda i: ((X,), {})


@case()
def environment():
    def calls(i):
        os.environ["PYRO_TEST_OFFSET"] = str(i // 5)
        return ((X,), {})

    return (lambda x: base(x, offset=float(os.environ["PYRO_TEST_OFFSET"]))), guide, calls


@case()
def context_variable():
    variable = contextvars.ContextVar("offset", default=0.5)

    def calls(i):
        if i > 5:
            variable.set(float(i))
        return ((X,), {})

    return (lambda x: base(x, offset=variable.get())), guide, calls


@case()
def thread_event():
    event = threading.Event()

    def calls(i):
        if i == 6:
            event.set()
        return ((X,), {})

    return (lambda x: base(x, offset=1.0 if event.is_set() else 0.0)), guide, calls


@case()
def word_of_a_global():
    def calls(i):
        global COUNT
        COUNT = i // 6
        return ((X,), {})

    return (lambda x: base(x, offset=float(globals()["COUNT"] + eval("COUNT + 1")))), guide, calls


@case()
def imported_inside():
    settings = sys.modules["settings_of_a_test"] = types.ModuleType("settings_of_a_test")
    settings.offset = 0.0

    def m(x):
        from settings_of_a_test import offset

        base(x, offset=offset)

    def calls(i):
        settings.offset = float(i // 5)
        return ((X,), {})

    return m, guide, calls


@case()
def behind_a_weak_reference():
    class Settings:
        offset = 0.0

    settings = Settings()
    known, named = weakref.ref(settings), weakref.WeakValueDictionary(settings=settings)

    def calls(i):
        settings.offset = float(i // 5)
        return ((X,), {})

    return (lambda x: base(x, offset=known().offset + named["settings"].offset)), guide, calls


@case()
def attribute_of_a_class_by_its_class():
    class Kind(type):
        @property
        def offset(cls):
            return cls._offset

    class Settings(metaclass=Kind):
        _offset = 0.0

    def calls(i):
        Settings._offset = float(i // 5)
        return ((X,), {})

    return (lambda x: base(x, offset=Settings.offset)), guide, calls


@case("remembers results that depend on more than its arguments")
def remembered_setting():
    settings = {"offset": 0.0}
    offset = functools.lru_cache(lambda: settings["offset"])

    def calls(i):
        settings["offset"] = float(i // 3)
        if i == 9:
            offset.cache_clear()
        return ((X,), {})

    return (lambda x: base(x, offset=offset())), guide, calls


@case()
def names_in_the_parameter_store():
    def calls(i):
        if i == 6:
            pyro.param("late", torch.tensor(0.0))
        return ((X,), {})

    return (lambda x: base(x, offset=1.0 if "late" in pyro.get_param_store() else 0.0)), guide, calls


@case("it reads a gradient of before")
def gradient_of_before():
    w = nn.Parameter(torch.ones(6))

    def calls(i):
        w.grad = torch.ones(6) if i > 8 else None
        return ((X,), {})

    return (lambda x: base(x, offset=0.0 if w.grad is None else 1.0)), guide, calls


@case("is a c_double, which changes without a trace")
def shared_with_processes():
    value = multiprocessing.Value("d", 1.0)

    def calls(i):
        value.value = 1.0 + i // 5
        return ((X,), {})

    return (lambda x: base(x, offset=value.value)), guide, calls


@case()
def trainable_new_param():
    flag = {"extra": False}

    def m(x):
        if flag["extra"]:
            x = x + pyro.param("extra", torch.zeros(6))
        base(x)

    def calls(i):
        flag["extra"] = i >= 6
        return ((X,), {})

    return m, guide, calls


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

    def calls(i):
        if i == 6:
            m.net = nn.Linear(6, 6)
        return ((X,), {})

    return m, guide, calls


@case()
def load_state_dict():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def calls(i):
        if i == 6:
            net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
        return ((X,), {})

    return m, guide, calls


@case()
def to_double():
    net = nn.Linear(6, 6)

    def m(x):
        base(net(x.to(net.weight.dtype)).float())

    def calls(i):
        if i == 6:
            net.double()
        return ((X,), {})

    return m, guide, calls


@case()
def autocast_inside():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x.expand(2, 6))
        base(y.float().sum(0))

    return m, guide, lambda i: ((X,), {})


@case()
def no_params():
    return base, (lambda x: pyro.sample("z", dist.Normal(0.0, 1.0))), lambda i: ((X,), {}), None


@case()
def warn_in_model():
    def m(x):
        warnings.warn("careful", stacklevel=1)
        base(x)

    return m, guide, lambda i: ((X,), {})


@case("a choice in Python")
def try_except():
    def m(x):
        try:
            y = x if x.sum() > 0 else -x
        except Exception:
            y = x * 100
        base(y)

    return m, guide, lambda i: ((X,), {})


@case()
def enum_and_slice_args():
    return (lambda x, s: base(x[s])), guide, lambda i: ((X, slice(0, 4 if i < 6 else 5)), {})


@case("of a kind of its own")
def big_literal_list():
    return (lambda x, numbers: base(x + torch.tensor(numbers))), guide, lambda i: ((X, [float(i)] * 6), {})


@case()
def dataset_index():
    data = torch.arange(60.0).reshape(10, 6)
    return (lambda i: base(data[i])), guide, lambda i: ((i % 10,), {})


@case("of a kind of its own")
def np_index_held():
    data = torch.arange(60.0).reshape(10, 6)
    return (lambda idx: base(data[idx].sum(0))), guide, lambda i: ((np.array([i % 10, (i + 1) % 10]),), {})


@case()
def module_global_switch():
    return (lambda x: base(x)), guide, lambda i: ((X.double() if i % 2 else X,), {})


@case()
def weird_optional():
    return (lambda x, y=None: base(x if y is None else x + y)), guide, lambda i: ((X,), {} if i % 2 else {"y": X})


@case("is compiled by itself")
def scripted():
    net = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))

    def m(x):
        pyro.module("net", net)
        base(net(x))

    return m, guide, lambda i: ((X,), {})


@case("is compiled by itself")
def traced():
    net = torch.jit.trace(nn.Linear(6, 6), X)
    return (lambda x: base(net(x))), guide, lambda i: ((X,), {})


@case()
def dataframe():
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"a": np.arange(6.0)})
    return (lambda x: base(x + torch.tensor(df["a"].values, dtype=torch.float32))), guide, lambda i: ((X,), {})


@case()
def dataframe_changed_inside():
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"a": np.arange(6.0), "b": list("abcdef")})

    def calls(i):
        if i == 6:
            df.loc[2, "a"] = 7.0
        return ((X,), {})

    return (lambda x: base(x + torch.tensor(df["a"].values, dtype=torch.float32))), guide, calls


@case("of a kind of its own")
def dataframe_arg():
    pd = pytest.importorskip("pandas")
    return (
        (lambda df: base(torch.tensor(df["a"].values, dtype=torch.float32))),
        guide,
        lambda i: ((pd.DataFrame({"a": np.arange(6.0) + i}),), {}),
    )


@case()
def optimizer_state_key():
    d = {torch.ones(1): 2.0}
    return (lambda x: base(x, offset=list(d.values())[0])), guide, lambda i: ((X,), {})


@case()
def bad_index():
    emb = nn.Embedding(4, 6)

    def m(i):
        pyro.module("emb", emb)
        base(emb(i))

    return m, guide, lambda i: ((torch.tensor(9 if i % 5 == 4 else i % 4),), {})


@case()
def distribution_arg():
    return (
        (lambda x, d: pyro.sample("z", d) + pyro.sample("x", dist.Normal(d.loc, 1.0).expand([6]).to_event(1), obs=x)),
        guide,
        lambda i: ((X, dist.Normal(torch.tensor(float(i)), 1.0)), {}),
    )


@case()
def distribution_held():
    prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))

    def m(x):
        w = pyro.sample("w", prior)
        base(x + w.sum())

    def g(x):
        pyro.sample("w", dist.Normal(pyro.param("wl", torch.zeros(2)), 1.0).to_event(1))
        guide(x)

    return m, g, lambda i: ((X,), {})


@case()
def transformer():
    net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def m(x):
        pyro.module("net", net)
        y = net(x.expand(4, 6).reshape(1, 6, 4)).sum(-1).squeeze(0)
        base(y)

    return m, guide, lambda i: ((X,), {})


@case()
def mha_eval():
    net = nn.MultiheadAttention(4, 2, batch_first=True).eval()

    def m(x):
        y = x.expand(4, 6).reshape(1, 6, 4)
        base(net(y, y, y)[0].sum(-1).squeeze(0))

    return m, guide, lambda i: ((X,), {})


@case()
def vmap_jvp():
    def m(x):
        y = torch.func.vmap(torch.func.grad(lambda t: t**3))(x)
        base(y)

    return m, guide, lambda i: ((X,), {})


@case()
def conv_net():
    net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 1, 3, padding=1))

    def m(x):
        pyro.module("net", net)
        base(net(x.reshape(1, 1, 6)).reshape(6))

    return m, guide, lambda i: ((X,), {})


@case()
def fft_and_linalg():
    def m(x):
        A = torch.outer(x, x) + torch.eye(6) * 3
        base(torch.linalg.solve(A, x) + torch.fft.rfft(x).abs().sum() + torch.linalg.cholesky(A).diagonal().log())

    return m, guide, lambda i: ((X,), {})


@case()
def delete_param():
    def m(x):
        base(x + pyro.param("w", lambda: torch.randn(6)))

    def calls(i):
        if i == 7:
            del pyro.get_param_store()["w"]
        return ((X,), {})

    return m, guide, calls


@case("changes itself")
def counter_in_global():
    def m(x):
        global COUNT
        COUNT += 1
        base(x, offset=COUNT % 2)

    return m, guide, lambda i: ((X,), {})


COUNT = 0


@case("it prints or logs (test_odd_programs.py")
def logging_model():
    log = logging.getLogger("mine")
    log.setLevel(logging.INFO)
    seen = []

    class H(logging.Handler):
        def emit(self, r):
            seen.append(1)

    log.addHandler(H())
    log.propagate = False

    def m(x):
        log.info("x")
        base(x)

    return m, guide, lambda i: ((X,), {}), "adam", lambda: len(seen)


@case()
def frozen_half():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def calls(i):
        net.weight.requires_grad_(i < 5 or i > 9)
        return ((X,), {})

    return m, guide, calls


@case()
def grad_set_by_hand():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        base(net(x))

    def calls(i):
        if i % 3 == 0:
            net.weight.grad = None
        return ((X,), {})

    return m, guide, calls


@case()
def weights_clamped():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        with torch.no_grad():
            net.weight.clamp_(-0.2, 0.2)
        base(net(x))

    return m, guide, lambda i: ((X,), {}), "adam", lambda: net.weight.sum().item()


@case()
def enum_switch():
    class Mode(enum.Enum):
        A = 1
        B = 2

    return (lambda x, m: base(x if m is Mode.A else -x)), guide, lambda i: ((X, Mode.A if i % 2 else Mode.B), {})


@case()
def set_and_frozenset():
    s = {"a"}

    def calls(i):
        if i == 6:
            s.add("b")
        return ((X,), {})

    return (lambda x: base(x * len(s))), guide, calls


@case()
def ragged():
    return (
        (lambda xs: base(torch.stack([x.sum() for x in xs]))),
        guide,
        lambda i: (([X[: 1 + j] for j in range(2 + i % 2)],), {}),
    )


@case()
def deterministic_site():
    def m(x):
        z = pyro.deterministic("d", x * 2)
        base(z)

    return m, guide, lambda i: ((X,), {})


@case("the shape of what")
def bool_tensor_index():
    mask = torch.tensor([True, False, True, True, False, True])
    return (lambda x: base(x[mask])), guide, lambda i: ((X,), {})


@case()
def obs_mask():
    def m(x, mask):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("d", 6), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return m, guide, lambda i: ((X, torch.arange(6) % (2 + i % 3) == 0), {})


def run(name, kind):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, own_guide, arguments, *rest = CASES[name]()
    optimizer = pyro.optim.SGD({"lr": 0.01}) if rest[:1] == ["sgd"] else pyro.optim.Adam({"lr": 0.02})
    elbo = kind()
    svi = SVI(model, own_guide, optimizer, elbo)
    found = []
    for i in range(14):
        args, kwargs = arguments(i)
        try:
            found.append(svi.step(*args, **kwargs))
        except IndexError:
            found.append(-1.0)
        if len(rest) > 1:
            found.append(rest[1]())
    parameters = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    return found, parameters, torch.rand(1).item()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.exhaustive) for name in CASES]
)
def test_an_odd_program_gives_what_stock_pyro_gives(name, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, parameters, noise = run(name, Trace_ELBO)
    printed = capsys.readouterr().out
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours, our_parameters, our_noise = run(name, CompiledTrace_ELBO)
    assert np.allclose(np.hstack(ours), np.hstack(found), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_parameters, parameters, rtol=1e-4, atol=1e-5)
    assert (our_noise, capsys.readouterr().out) == (noise, printed)
    reasons = [str(warning.message) for warning in said if warning.category is NotCompiled]
    assert len(reasons) == (REASONS[name] is not None), reasons
    assert REASONS[name] is None or REASONS[name] in reasons[0]
    assert all(warning.category in (NotCompiled, Recompiled, UserWarning, FutureWarning) for warning in said)

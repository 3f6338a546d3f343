"""Programs that a run of them changes: iterators, counters, buffers, notes."""

from __future__ import annotations

import collections
import functools
import itertools

import pyro
import torch
from pyro import poutine
from torch import nn

from tests.compiled.odd_programs.program import Program, X, base, call, case, guide


class IterObj:
    def __init__(self):
        self.n = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        return float(self.n)


COUNT = 0


@case("it in model is a cycle", quick=True)
def iter_cycle():
    it = itertools.cycle([1.0, 2.0, 3.0])
    return Program(lambda x: base(x, offset=next(it)))


@case("it in model is a generator")
def gen_obj():
    def g():
        while True:
            yield 1.0
            yield 2.0

    it = g()
    return Program(lambda x: base(x, offset=next(it)))


@case("it in model is a count")
def count_obj():
    it = itertools.count()
    return Program(lambda x: base(x, offset=float(next(it))))


@case("changes itself")
def deque_rot():
    d = collections.deque([1.0, 2.0, 3.0])

    def m(x):
        d.rotate(1)
        base(x, offset=d[0])

    return Program(m)


@case("each run changes the program")
def list_append():
    calls_made = []

    def m(x):
        calls_made.append(1)
        base(x, offset=float(len(calls_made)))

    return Program(m)


@case("changes itself")
def dict_counter():
    c = collections.Counter()

    def m(x):
        c["n"] += 1
        base(x, offset=float(c["n"] % 3))

    return Program(m)


@case("changes itself")
def own_iter():
    it = IterObj()
    return Program(lambda x: base(x, offset=next(it)))


@case("binds guide.trace to another object")
def trace_kept():
    class G:
        def inner(self, x):
            return guide(x)

        def __call__(self, x):
            self.trace = poutine.trace(self.inner).get_trace(x)
            return self.trace.nodes["z"]["value"]

    return Program(base, guide=G())


@case("is none that the programs hold")
def lru():
    @functools.lru_cache
    def c(n):
        return torch.arange(float(n))

    return Program(lambda x: base(x + c(6)))


@case()
def lru_of_numbers():
    @functools.lru_cache
    def width(n):
        return float(n) ** 0.5

    return Program(lambda x: base(x * width(4)))


@case(quick=True)
def aux_attr():
    class M:
        def __call__(self, x):
            self.kl = (x * 2).sum()
            self.terms = {"a": x.mean(), "n": len(x)}
            base(x)

    m = M()
    return Program(m, calls=lambda i: call(X + i), read=lambda: (m.kl.item(), m.terms["a"].item(), m.terms["n"]))


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
    return Program(m, calls=lambda i: call(X + i), read=lambda: m.ema.sum().item())


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
    return Program(m, read=lambda: m.n)


@case()
def inplace_arg():
    def m(x):
        x.mul_(0.9)
        base(x)

    y = X.clone()
    return Program(m, calls=lambda i: call(y), read=lambda: y.sum().item())


@case("remembers results that depend on more than its arguments")
def remembered_setting():
    settings = {"offset": 0.0}
    offset = functools.lru_cache(lambda: settings["offset"])

    def before(i):
        settings["offset"] = float(i // 3)
        if i == 9:
            offset.cache_clear()

    return Program(lambda x: base(x, offset=offset()), before=before)


@case("changes itself")
def counter_in_global():
    def m(x):
        global COUNT
        COUNT += 1
        base(x, offset=COUNT % 2)

    return Program(m)


@case()
def weights_clamped():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        with torch.no_grad():
            net.weight.clamp_(-0.2, 0.2)
        base(net(x))

    return Program(m, read=lambda: net.weight.sum().item())

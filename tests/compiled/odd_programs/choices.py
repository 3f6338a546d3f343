"""Programs whose Python chooses by the values of tensors."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from tests.compiled.odd_programs.program import Program, X, base, call, case, guide, mapped


@case("a choice in Python")
def value_if():
    def m(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        s = 2.0 if z > 0 else 1.0
        pyro.sample("x", dist.Normal(z, s).expand([len(x)]).to_event(1), obs=x)

    return Program(m)


@case("a choice in Python")
def while_loop():
    def m(x):
        t = torch.tensor(0.0)
        while t < x.abs().sum():
            t = t + 1.0
        base(x, offset=t)

    return Program(m, calls=lambda i: call(X * (1 + i)))


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

    return Program(m, guide=g)


@case("a choice in Python", quick=True)
def memmap_fail():
    t = mapped()

    def m(x):
        if x.sum() > -100:
            x = x + t
        base(x)

    return Program(m)


@case("a choice in Python")
def try_except():
    def m(x):
        try:
            y = x if x.sum() > 0 else -x
        except Exception:
            y = x * 100
        base(y)

    return Program(m)


@case("the shape of what")
def bool_tensor_index():
    mask = torch.tensor([True, False, True, True, False, True])
    return Program(lambda x: base(x[mask]))

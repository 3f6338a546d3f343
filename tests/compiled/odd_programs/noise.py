"""Programs with noise of their own: generators, seeds, and noise that is made again."""

from __future__ import annotations

import os
import random

import numpy as np
import pyro
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.compiled.odd_programs.program import Program, base, case


@case("a generator of random numbers of its own")
def np_generator():
    rng = np.random.default_rng(0)
    return Program(lambda x: base(x, offset=float(rng.normal())))


@case("a generator of random numbers of its own")
def py_random_object():
    rng = random.Random(0)
    return Program(lambda x: base(x, offset=rng.random()))


@case("a generator of random numbers of its own is drawn from")
def torch_generator():
    g = torch.Generator().manual_seed(0)
    return Program(lambda x: base(x + torch.randn(6, generator=g)))


@case("random numbers of Python or NumPy")
def np_global():
    np.random.seed(0)
    return Program(lambda x: base(x, offset=np.random.rand()))


@case("random numbers of Python or NumPy")
def py_global():
    random.seed(0)
    return Program(lambda x: base(x, offset=random.gauss(0, 1)))


@case("its graph gave", quick=True)
def reseed():
    def m(x):
        torch.manual_seed(1)
        base(x + torch.randn(6))

    return Program(m)


@case("the generator is seeded")
def pyro_reseed():
    def m(x):
        pyro.set_rng_seed(3)
        base(x)

    return Program(m)


@case("its graph gave")
def fork_rng():
    def m(x):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            n = torch.randn(6)
        base(x + n)

    return Program(m)


@case("the generator is seeded")
def checkpointed():
    net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))

    def m(x):
        pyro.module("net", net)
        base(checkpoint(net, x, use_reentrant=False))

    return Program(m)


@case("random numbers of the system")
def system_noise():
    return Program(lambda x: base(x if os.urandom(1)[0] < 256 else -x))

import functools

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn


class Model:
    def __init__(self, width):
        self.net = nn.Linear(2, width)
        self.calls = {}

    def __call__(self, x, scale):
        pyro.module("decoder", self.net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), scale).to_event(1), obs=x)


class Guide:
    encoder = nn.Linear(4, 4)

    @staticmethod
    def split(h):
        return h.chunk(2, -1)

    @classmethod
    def run(cls, x):
        pyro.module("encoder", cls.encoder)
        with pyro.plate("data", len(x)):
            loc, raw = cls.split(cls.encoder(x))
            pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw)).to_event(1))


x = torch.randn(6, 4)
model = functools.partial(Model(4), scale=2.0)
svi = SVI(model, lambda x: Guide.run(x), pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses = [svi.step(x) for _ in range(10)]

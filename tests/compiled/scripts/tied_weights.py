import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

x = torch.randn(7, 5)
encoder, decoder = nn.Linear(5, 2), nn.Linear(2, 5, bias=False)
decoder.weight = nn.Parameter(torch.randn(5, 2))
shared = nn.Parameter(torch.randn(2, 5))
encoder.weight = shared


def model(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ encoder.weight + z @ shared, 1.0).to_event(1), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
losses = [svi.step(x) for _ in range(10)]

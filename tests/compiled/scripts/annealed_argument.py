import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(6, 4)
        self.end = nn.Linear(2, 6)


net = Net()
rows = torch.randn(36, 6)


def model(x, beta=1.0):
    pyro.module("net", net)
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=beta):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(net.end(z), 1.0).to_event(1), obs=x)


def guide(x, beta=1.0):
    pyro.module("net", net)
    with pyro.plate("data", len(x)):
        loc, log_scale = net.start(x).chunk(2, -1)
        with poutine.scale(scale=beta):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses, step = [], 0
for epoch in range(5):
    for x in rows.split(12):
        step += 1
        losses.append(svi.step(x, beta=min(1.0, step / 10)))

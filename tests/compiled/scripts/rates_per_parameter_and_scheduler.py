import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(6, 4)
        self.end = nn.Linear(2, 6)


net = Net()
rows = torch.randn(36, 6)


def model(x):
    pyro.module("net", net)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(net.end(z), 1.0).to_event(1), obs=x)


def guide(x):
    pyro.module("net", net)
    with pyro.plate("data", len(x)):
        loc, log_scale = net.start(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def settings(name):
    return {"lr": 1e-3 if name.startswith("net") else 1e-2}


scheduler = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": settings, "gamma": 0.7})
svi = SVI(model, guide, scheduler, Trace_ELBO())
losses = []
for epoch in range(6):
    for x in rows.split(18):
        losses.append(svi.step(x))
    scheduler.step()

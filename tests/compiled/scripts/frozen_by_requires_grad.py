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


svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses = [svi.step(rows) for _ in range(8)]
net.end.requires_grad_(False)
net.eval()
losses += [svi.step(rows) for _ in range(8)]
weight = net.end.weight.detach().clone()

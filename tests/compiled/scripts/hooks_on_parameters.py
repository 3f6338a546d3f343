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


norms, losses = [], []
net.end.weight.register_hook(lambda gradient: gradient.clamp(-0.5, 0.5))
net.end.bias.register_hook(lambda gradient: norms.append(gradient.norm().item()))
svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
for epoch in range(4):
    for x in rows.split(18):
        losses.append(svi.step(x))
losses += norms

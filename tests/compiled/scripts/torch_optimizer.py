import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
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


elbo, losses = Trace_ELBO(), []
with pyro.poutine.trace(param_only=True) as capture:
    elbo.differentiable_loss(model, guide, rows)
params = {site["value"].unconstrained() for site in capture.trace.nodes.values()}
optimizer = torch.optim.SGD(sorted(params, key=lambda p: p.numel()), lr=1e-3)
for epoch in range(4):
    for x in rows.split(12):
        optimizer.zero_grad()
        loss = elbo.differentiable_loss(model, guide, x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

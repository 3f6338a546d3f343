import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

x = torch.randn(5, 4, 3)
gru, head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 4)
decoder = nn.Linear(2, 12)


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z).reshape(-1, 4, 3), 1.0).to_event(2), obs=x)


def guide(x):
    pyro.module("gru", gru)
    pyro.module("head", head)
    _, (h, _) = gru(x)
    loc, raw = head(h[0]).chunk(2, -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses = [svi.step(x) for _ in range(8)]

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

config = SimpleNamespace(scale=1.0, prior="normal", epochs=6, history=[])
sizes, losses, x = {"latent": 2, "step": 0}, [], torch.randn(8, 3)


def prior():
    if config.prior == "normal":
        return dist.Normal(torch.zeros(sizes["latent"]), 1.0).to_event(1)
    return dist.Laplace(torch.zeros(sizes["latent"]), 1.0).to_event(1)


def model(x):
    w = pyro.param("w", torch.ones(sizes["latent"], 3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z @ w, config.scale).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(8, 2)), 0.5).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for config.epoch in range(config.epochs):
    sizes["step"] = config.epoch
    losses.append(svi.step(x))
    config.history.append(losses[-1])

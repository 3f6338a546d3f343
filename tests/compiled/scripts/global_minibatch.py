import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

rows, losses = torch.randn(30) + 1.0, []


def model():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("batch", len(batch)):
        pyro.sample("obs", dist.Normal(loc, 1.0), obs=batch)


def guide():
    pyro.sample("loc", dist.Normal(pyro.param("m", torch.tensor(0.0)), 0.1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for epoch in range(3):
    for batch in rows.split(6):
        losses.append(svi.step())

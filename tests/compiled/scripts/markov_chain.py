import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

x, losses = torch.randn(6, 4), []


def model(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    z = torch.zeros(4)
    with pyro.plate("sequences", 4):
        for t in pyro.markov(range(len(x))):
            z = pyro.sample(f"z_{t}", dist.Normal(0.9 * z, 0.5))
            pyro.sample(f"x_{t}", dist.Normal(z, scale), obs=x[t])


def guide(x):
    with pyro.plate("sequences", 4):
        for t in range(len(x)):
            pyro.sample(f"z_{t}", dist.Normal(pyro.param(f"loc_{t}", torch.zeros(4)), 0.3))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for t in range(8):
    losses.append(svi.step(x))

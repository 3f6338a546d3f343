import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

x, losses = torch.randn(40) + 1.0, []


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=10) as ind:
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[ind])


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for ind in range(10):
    losses.append(svi.step(x))

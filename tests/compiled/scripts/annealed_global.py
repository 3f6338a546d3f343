import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

weight, x, losses = 0.5, torch.randn(9) + 1.0, []


def model():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc * weight, 1.0), obs=x)


def guide():
    pyro.sample("loc", dist.Normal(pyro.param("m", torch.tensor(0.0)), pyro.param("s", torch.tensor(1.0)).exp()))


svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.02}), Trace_ELBO())
for weight in [0.5 + 0.01 * i for i in range(15)]:
    losses.append(svi.step())

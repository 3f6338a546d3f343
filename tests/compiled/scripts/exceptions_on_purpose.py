import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

losses, x = [], torch.randn(8)


def model(x):
    if len(x) > 8:
        raise ValueError("too many")
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for step in range(12):
    try:
        losses.append(svi.step(x if step % 3 else torch.randn(9)))
    except ValueError:
        losses.append(0.0)

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

x, losses = torch.randn(8) + 1.0, []


def make(scale):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


elbo = Trace_ELBO()
adam = pyro.optim.Adam({"lr": 0.02})
pairs = [SVI(make(scale), guide, adam, elbo) for scale in (1.0, 3.0)]
for scale in range(6):
    for svi in pairs:
        losses.append(svi.step(x))

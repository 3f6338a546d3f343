import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

rows, losses = np.random.default_rng(0).normal(size=(24,)).astype(np.float32), []


def model(x, scale):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, float(scale)), obs=torch.as_tensor(x))


def guide(x, scale):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for i in range(12):
    losses.append(svi.step(rows, np.float64(1.5)))

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

losses, data = [], torch.randn(12) + 2.0
for scale in (0.5, 1.0, 2.0):
    pyro.clear_param_store()

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))

        def likelihood(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(z, width), obs=x)

        likelihood(x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.3))

    width = scale
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses += [svi.step(data) for _ in range(6)]

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

net, x = nn.Linear(3, 3), torch.randn(5, 3)


def model(x):
    pyro.module("net", net, update_module_params=True)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(5, 3)), 1.0).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
losses = [svi.step(x) for _ in range(6)]
store = pyro.get_param_store()
for name in list(store):
    store[name] = store[name].detach() + 0.5
losses += [svi.step(x) for _ in range(8)]

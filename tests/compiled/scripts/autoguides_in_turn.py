import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, scale), obs=y)


x = torch.randn(15, 2)
y = x @ torch.tensor([1.0, -1.0])
losses = []
for guide in (AutoNormal(model), AutoDelta(model), AutoMultivariateNormal(model), AutoLowRankMultivariateNormal(model)):
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for w in range(6):
        losses.append(svi.step(x, y))
    scale = guide.median(x, y)["scale"]

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

x = torch.randn(12, 6)
encoder = nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4))
decoder = nn.Sequential(
    parametrizations.spectral_norm(nn.Linear(2, 8)), nn.Tanh(), parametrizations.weight_norm(nn.Linear(8, 6))
)


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        loc, raw = encoder(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses = [svi.step(x) for _ in range(9)]

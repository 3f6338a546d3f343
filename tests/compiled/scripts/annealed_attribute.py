import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = 0.1
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)
        self.losses = []

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            with poutine.scale(scale=self.beta):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]), poutine.scale(scale=self.beta):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


x = torch.rand(10, 6).round()
vae = VAE()
svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
for epoch in range(8):
    vae.beta = min(1.0, 0.2 * (epoch + 1))
    for _ in range(3):
        vae.losses.append(svi.step(x))
losses = vae.losses

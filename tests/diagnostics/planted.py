"""Posteriors that are right, or wrong in a known way."""

import pyro
import pyro.distributions as dist
import torch

from pyro_vae.models import LinearGaussian
from pyro_vae.pairs.pair import Pair


def linear_model(latent_dim=10, data_dim=12):
    """A linear-Gaussian model with a correlated posterior."""
    torch.manual_seed(5)
    model = LinearGaussian((data_dim,), latent_dim, sigma="fixed", scale=0.4)
    model.requires_grad_(False)
    return model


def linear_pair(scale=1.0, shift=0.0, independent=False, latent_dim=10, data_dim=12):
    """That model and its exact posterior, its scale changed, moved by so many sds, or without its correlations."""
    model = linear_model(latent_dim, data_dim)

    def guide(x):
        exact = model.posterior(x)
        sd = exact.variance.sqrt()
        with pyro.plate("data", len(x)):
            if independent:
                pyro.sample("z", dist.Normal(exact.mean, sd).to_event(1))
            else:
                q = dist.MultivariateNormal(exact.mean + shift * sd, scale_tril=scale * exact.scale_tril)
                pyro.sample("z", q)

    pair = Pair(model, guide)
    return pair.probe(torch.zeros(2, data_dim))


def bimodal_pair(both=True):
    """z from two far normals, x = z / 5 + noise; the exact posterior, which has two modes, or its upper one."""
    places, variance, slope = torch.tensor([-3.0, 3.0]), 0.25, 0.2

    def mixture(logits, loc, scale):
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", mixture(torch.zeros(len(x), 2), places.expand(len(x), 2), variance**0.5))
            pyro.sample("x", dist.Normal(slope * z, 1.0), obs=x)

    def guide(x):
        x = x.unsqueeze(-1)
        narrower = 1 / (1 / variance + slope**2)
        logits = dist.Normal(slope * places, (1 + slope**2 * variance) ** 0.5).log_prob(x)
        if not both:
            logits = torch.tensor([-200.0, 0.0]).expand(len(x), 2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", mixture(logits, narrower * (places / variance + slope * x), narrower**0.5))

    pair = Pair(model, guide)
    return pair.probe(torch.zeros(2))

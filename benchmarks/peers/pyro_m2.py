"""Pyro's own semi-supervised VAE, model M2, in the arrangement of its tutorial example ``ss_vae_M2``.

p(y) p(z) p(x | y, z) with the guide q(y | x) q(z | x, y), labels as indicator vectors joined to the other input of a
network, softplus layers, ``TraceEnum_ELBO`` over ``config_enumerate(guide, "parallel", expand=True)``.  The label is
expanded over the batch, so the first layers, and x with them, are computed once for every class.

The example trains on labelled and unlabelled batches in turn, nearly all of them unlabelled, so a step here is an
unlabelled one.  What is fair about it: sizes, batch and pixels are those of pyro_vae's step, validation is off, and
pixels are scored from logits, which is faster than from probabilities.
"""

from __future__ import annotations

from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from benchmarks.peers import settings
from benchmarks.peers.batches import batches
from benchmarks.peers.pyro_stock import adam, steps_of
from benchmarks.timing import Here, Work


class Joined(nn.Module):
    """A multilayer perceptron with softplus layers on the concatenation of its inputs, broadcast to each other."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Softplus()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs of shape (..., sizes[-1])."""
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in inputs))
        outputs: Tensor = self.layers(torch.cat([value.expand(*batch, -1) for value in inputs], -1))
        return outputs


class M2(nn.Module):
    """The programs and their networks."""

    def __init__(self) -> None:
        super().__init__()
        pixels, classes, dim = settings.NUM_PIXELS, settings.NUM_CLASSES, settings.LATENT_DIM
        self.encoder_y = Joined(pixels, *settings.M2_HIDDEN, classes)
        self.encoder_z = Joined(pixels + classes, *settings.M2_HIDDEN, 2 * dim)
        self.decoder = Joined(dim + classes, *settings.M2_HIDDEN[::-1], pixels)

    def model(self, x: Tensor) -> None:
        """p(y) p(z) p(x | y, z)."""
        pyro.module("m2", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(settings.LATENT_DIM), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(settings.NUM_CLASSES)))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z, y)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(y | x) q(z | x, y)."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.encoder_y(x)))
            loc, log_scale = self.encoder_z(x, y).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def pyro_m2() -> Here:
    """The contender."""
    return Here("stock Pyro, M2", build)


def build() -> Work:
    """The work."""
    m2 = M2()
    guide = config_enumerate(m2.guide, "parallel", expand=True)
    svi = SVI(m2.model, guide, adam(), TraceEnum_ELBO(max_plate_nesting=1))
    return steps_of(svi, batches(settings.M2_BATCH_SIZE))

r"""A toy model with a curved posterior: x = W f(z) + b + s e, with f(z) = (z_2 + c (z_1^2 - 1), z_3, …, z_D).

Only f of the D standard normal latents is seen, so z_1 and z_2 trade off along a parabola: the posterior of an x is a
bent ridge that no normal follows, on which guides can be told apart.  The shape is that of the banana-shaped target of
Haario, Saksman and Tamminen, *Adaptive Proposal Distribution for Random Walk Metropolis Algorithm*, 1999.
"""

from __future__ import annotations

import math
from typing import Literal

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Gaussian
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.priors import StandardNormal
from pyro_vae.validation import Positive


@MODELS.register("banana")
class Banana(Model):
    """A toy whose posterior is a bent ridge: linear but for one squared latent.

    Args:
        event_shape: the shape of one datum.
        latent_dim: the dimension D of z, at least two.
        bend: c, how much the ridge bends.
        sigma: how the noise scale is found; see ``likelihoods``.
        scale: the noise scale s, or where finding it starts.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 2,
        bend: Positive = 1.0,
        sigma: Literal["learned", "fixed"] = "fixed",
        scale: Positive = 0.3,
    ) -> None:
        if latent_dim < 2:
            raise InputError("at least two latent dimensions for the model 'banana'", "1", "use --latent-dim 2")
        super().__init__(event_shape, (Latent("z", latent_dim),), Gaussian(tuple(event_shape), sigma, scale))
        self.bend = bend
        self.prior = StandardNormal(latent_dim)
        self.decoder = nn.Linear(latent_dim - 1, math.prod(self.event_shape))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample("z", self.prior())
            bent = z[..., 1] + self.bend * (z[..., 0].square() - 1)
            seen = torch.cat([bent.unsqueeze(-1), z[..., 2:]], -1)
            return pyro.sample("x", self.likelihood(self.decoder(seen).unflatten(-1, self.event_shape)), obs=x)

r"""Priors: modules whose ``forward()`` returns p(z).

The event dimension is declared, so the site is one line: ``z = pyro.sample("z", self.prior())``.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.registry import Registry

PRIORS: Registry[nn.Module] = Registry("prior")


@PRIORS.register("normal")
class StandardNormal(nn.Module):
    r"""The standard normal, N(0, I).

    Args:
        latent_dim: the dimension D of z.
    """

    zero: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # carries device and dtype

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        loc = self.zero.expand(self.latent_dim)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)

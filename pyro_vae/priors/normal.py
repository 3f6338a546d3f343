"""The standard normal prior, N(0, I)."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.priors.base import PRIORS


@PRIORS.register("normal")
class StandardNormal(nn.Module):
    r"""The standard normal, N(0, I).

    Args:
        latent_dim: the dimension D of z.

    Example:
        >>> from pyro_vae.priors import StandardNormal
        >>> prior = StandardNormal(latent_dim=2)
        >>> prior().sample([5]).shape
        torch.Size([5, 2])
        >>> prior().log_prob(torch.zeros(2))  # minus the logarithm of two pi
        tensor(-1.8379)
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

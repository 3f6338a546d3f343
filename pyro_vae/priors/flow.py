"""A learned masked autoregressive flow of a standard normal as a prior."""

from __future__ import annotations

from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.nn import AutoRegressiveNN
from torch import nn

from pyro_vae.networks import start_near_identity
from pyro_vae.option_types import Whole
from pyro_vae.priors.base import PRIORS, Copied
from pyro_vae.priors.normal import StandardNormal


class _Map(Copied, dist.transforms.AffineAutoregressive):
    """An affine autoregressive map."""


@PRIORS.register("flow")
class AutoregressiveFlow(nn.Module):
    r"""A learned masked autoregressive flow of a standard normal.

    z = T_K o … o T_1(e), e ~ N(0, I), each T_k the inverse of an affine autoregressive map with the dimensions
    reversed in between.  Densities take one pass, which is what training needs; samples take D.  Papamakarios,
    Pavlakou and Murray, *Masked Autoregressive Flow for Density Estimation*, 2017; as a prior, Chen et al.,
    *Variational Lossy Autoencoder*, 2017.

    Args:
        latent_dim: the dimension D of z.
        num_transforms: how many maps are chained.

    Example:
        >>> from pyro_vae.priors import AutoregressiveFlow
        >>> side = torch.linspace(-8, 8, 81)
        >>> grid = torch.cartesian_prod(side, side)
        >>> density = AutoregressiveFlow(latent_dim=2)().log_prob(grid).exp()
        >>> round(density.sum().item() * 0.2**2, 3)  # it integrates to one
        1.0
    """

    def __init__(self, latent_dim: int, num_transforms: Whole = 2) -> None:
        super().__init__()
        self.base = StandardNormal(latent_dim)
        orders = [torch.arange(latent_dim), torch.arange(latent_dim).flip(0)]
        self.maps = nn.ModuleList()
        for index in range(num_transforms):
            order, width = orders[index % 2], max(64, latent_dim + 1)
            network = AutoRegressiveNN(latent_dim, [width], permutation=cast(torch.LongTensor, order))
            start_near_identity(network)
            self.maps.append(_Map(network))  # type: ignore[no-untyped-call]

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        return dist.TransformedDistribution(self.base(), [cast(Any, step).inv for step in self.maps])

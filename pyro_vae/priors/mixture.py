"""A learned mixture of diagonal normals as a prior, sum_k pi_k N(mu_k, diag sigma_k^2)."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import nn

from pyro_vae.option_types import Whole
from pyro_vae.priors.base import PRIORS


@PRIORS.register("mixture")
class NormalMixture(nn.Module):
    r"""A learned mixture of diagonal normals, sum_k pi_k N(mu_k, diag sigma_k^2).

    Dilokthanakul et al., *Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders*, 2016, use it
    for latents that cluster.

    Args:
        latent_dim: the dimension D of z.
        num_components: the number K of normals.

    Example:
        >>> from pyro_vae.priors import NormalMixture
        >>> prior, z = NormalMixture(latent_dim=2, num_components=3), torch.zeros(2)
        >>> components = torch.distributions.Normal(prior.locs, prior.log_scales.exp()).log_prob(z).sum(-1)
        >>> torch.allclose(prior().log_prob(z).exp(), components.exp().mean())  # the weights start equal
        True
    """

    def __init__(self, latent_dim: int, num_components: Whole = 10) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.locs = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim))

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        components = dist.Normal(self.locs, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

r"""The mean-field guide: a normal with diagonal covariance, q(z | x) = N(z; mu(x), diag sigma(x)^2).

Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.
"""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Model
from pyro_vae.networks import Network


class DiagonalNormal(nn.Module):
    """N(mu, diag sigma^2), with mu and log sigma linear in the features."""

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.loc = nn.Linear(num_features, size)
        self.log_scale = nn.Linear(num_features, size)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        return dist.Normal(self.loc(features), self.log_scale(features).exp()).to_event(1)


@GUIDES.register("mean_field")
class MeanField(Guide):
    """Normal with diagonal covariance, amortized by an encoder."""

    def __init__(self, model: Model, *, network: Network | None = None, classifier: Network | None = None) -> None:
        super().__init__(model, DiagonalNormal, network=network, classifier=classifier)

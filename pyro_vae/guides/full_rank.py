r"""The full-rank guide: q(z | x) = N(z; mu(x), L(x) L(x)^T), L lower triangular with a positive diagonal.

It knows every correlation between the latent dimensions, at D^2 numbers per datum.  On a linear-Gaussian model it holds
the exact posterior.
"""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Declares
from pyro_vae.networks import Network
from pyro_vae.shapes import Float


class CholeskyNormal(nn.Module):
    """N(mu, L L^T), with mu and the unconstrained entries of L linear in the features."""

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.loc = nn.Linear(num_features, size)
        self.cholesky = nn.Linear(num_features, size * size)
        self.to_lower = dist.transforms.LowerCholeskyTransform()

    def forward(self, features: Float[Tensor, "... F"]) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        loc = self.loc(features)
        entries = self.cholesky(features).unflatten(-1, (loc.shape[-1], loc.shape[-1]))
        return dist.MultivariateNormal(loc, scale_tril=self.to_lower(entries))


@GUIDES.register("full_rank")
class FullRank(Guide):
    """Normal with a full covariance, by its Cholesky factor.

    Example:
        >>> from torch.distributions import kl_divergence
        >>> from pyro_vae.guides import FullRank
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((5,)), torch.randn(3, 5)
        >>> q = FullRank(model).posterior(x)
        >>> q.covariance_matrix.shape
        torch.Size([3, 2, 2])
        >>> kl_divergence(q, model.posterior(x)) > 0  # by how much the bound falls short, before any training
        tensor([True, True, True])
    """

    def __init__(self, model: Declares, *, network: Network | None = None, classifier: Network | None = None) -> None:
        super().__init__(model, CholeskyNormal, network=network, classifier=classifier)

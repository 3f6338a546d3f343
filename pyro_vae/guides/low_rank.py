r"""The low-rank guide: q(z | x) = N(z; mu(x), W(x) W(x)^T + diag d(x)), W of shape (D, R).

Between mean-field and full-rank: the R strongest directions of correlation, at D (R + 2) numbers per datum.
"""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Declares
from pyro_vae.networks import Network
from pyro_vae.option_types import Whole
from pyro_vae.shapes import Float


class FactorNormal(nn.Module):
    """N(mu, W W^T + diag d), with mu, W and log d linear in the features."""

    def __init__(self, num_features: int, size: int, rank: int) -> None:
        super().__init__()
        self.rank = min(rank, size)
        self.loc = nn.Linear(num_features, size)
        self.factor = nn.Linear(num_features, size * self.rank)
        self.log_diagonal = nn.Linear(num_features, size)

    def forward(self, features: Float[Tensor, "... F"]) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        loc = self.loc(features)
        factor = self.factor(features).unflatten(-1, (loc.shape[-1], self.rank))
        return dist.LowRankMultivariateNormal(loc, factor, self.log_diagonal(features).exp())


@GUIDES.register("low_rank")
class LowRank(Guide):
    """Normal with a covariance of a few factors plus a diagonal.

    Args:
        model: the model whose latent sites this guide samples.
        rank: the number R of factors; never more than the latent dimension.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site; default: ``network``.

    Example:
        >>> from pyro_vae.guides import LowRank
        >>> from pyro_vae.models import VAE
        >>> q = LowRank(VAE((1, 8, 8), latent_dim=5), rank=2).posterior(torch.rand(3, 1, 8, 8))
        >>> q.cov_factor.shape
        torch.Size([3, 5, 2])
        >>> correlated = q.cov_factor @ q.cov_factor.mT
        >>> torch.allclose(q.covariance_matrix, correlated + q.cov_diag.diag_embed(), atol=1e-5)
        True
    """

    def __init__(
        self, model: Declares, rank: Whole = 2, *, network: Network | None = None, classifier: Network | None = None
    ) -> None:
        super().__init__(model, partial(FactorNormal, rank=rank), network=network, classifier=classifier)

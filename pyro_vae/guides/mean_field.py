r"""The mean-field guide: a normal with diagonal covariance, q(z | x) = N(z; mu(x), diag sigma(x)^2).

Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.
"""

from __future__ import annotations

from pyro_vae.conditionals import DiagonalNormal
from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Model
from pyro_vae.networks import Network


@GUIDES.register("mean_field")
class MeanField(Guide):
    """Normal with diagonal covariance, amortized by an encoder.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> guide = MeanField(model)
        >>> guide.posterior(x).stddev.shape
        torch.Size([3, 2])
        >>> Trace_ELBO().loss(model, guide, x) > 0  # a model and a guide of Pyro's, in nats
        True
    """

    def __init__(self, model: Model, *, network: Network | None = None, classifier: Network | None = None) -> None:
        super().__init__(model, DiagonalNormal, network=network, classifier=classifier)

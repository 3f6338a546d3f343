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
    """Normal with diagonal covariance, amortized by an encoder."""

    def __init__(self, model: Model, *, network: Network | None = None, classifier: Network | None = None) -> None:
        super().__init__(model, DiagonalNormal, network=network, classifier=classifier)

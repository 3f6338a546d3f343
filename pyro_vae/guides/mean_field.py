r"""The mean-field guide: a normal with diagonal covariance, q(z | x) = N(z; mu(x), diag sigma(x)^2).

Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix C.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from pyro_vae.conditionals import DiagonalNormal
from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Declares
from pyro_vae.networks import Network
from pyro_vae.option_types import Positive


@GUIDES.register("mean_field")
class MeanField(Guide):
    """Normal with diagonal covariance, amortized by an encoder.

    Args:
        model: the model whose latent sites this guide samples.
        init_scale: about what every scale is before training.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site; default: ``network``.

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

    def __init__(
        self,
        model: Declares,
        init_scale: Positive = 1.0,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__(model, partial(_normal, init_scale=init_scale), network=network, classifier=classifier)


def _normal(num_features: int, size: int, init_scale: float) -> nn.Module:
    normal = DiagonalNormal(num_features, size)
    with torch.no_grad():
        normal.log_scale.bias.add_(math.log(init_scale))
    return normal

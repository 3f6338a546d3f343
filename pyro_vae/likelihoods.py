r"""Likelihoods: modules whose ``forward(params)`` returns p(x | z).

``params`` is what the decoder puts out, of shape (..., \*event_shape); every dimension of an image is an event
dimension, so log-probabilities are nats per image.  Which values x may take is the support of the distribution.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.registry import Registry


class Likelihood(nn.Module):
    """Base of the likelihoods.

    A new one subclasses this, registers itself and writes ``forward(params)``, declaring ``self.event_dim`` event
    dimensions.

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_dim = len(event_shape)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        r"""p(x | z) from decoder outputs of shape (..., \*event_shape)."""
        raise NotImplementedError


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood")


@LIKELIHOODS.register("bernoulli")
class Bernoulli(Likelihood):
    """Independent Bernoulli pixels, from logits; for binarized images."""

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=params).to_event(self.event_dim)


class _Located(Likelihood):
    """A location family with one scale for all pixels, held as its logarithm."""

    log_scale: Tensor

    def __init__(self, event_shape: tuple[int, ...], scale: float = 1.0, learn_scale: bool = True) -> None:
        super().__init__(event_shape)
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)


@LIKELIHOODS.register("gaussian")
class Gaussian(_Located):
    """Independent normal pixels around the decoder's output, with one learned scale.

    Args:
        event_shape: the shape of one datum.
        scale: the standard deviation, in pixel units, or where learning it starts.
        learn_scale: whether it is a parameter.
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Normal(params, self.log_scale.exp()).to_event(self.event_dim)


@LIKELIHOODS.register("laplace")
class Laplace(_Located):
    """Independent Laplace pixels around the decoder's output, with one learned scale: the L1 reconstruction.

    Args:
        event_shape: the shape of one datum.
        scale: the mean absolute deviation, in pixel units, or where learning it starts.
        learn_scale: whether it is a parameter.
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(params, self.log_scale.exp()).to_event(self.event_dim)


@LIKELIHOODS.register("continuous_bernoulli")
class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli pixels, from logits: a density for gray pixels in [0, 1].

    p(x) = C(l) l^x (1 - l)^{1 - x} with C(l) = 2 artanh(1 - 2 l) / (1 - 2 l), and C(1/2) = 2.  Loaiza-Ganem and
    Cunningham, *The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders*, 2019.
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.ContinuousBernoulli(logits=params).to_event(self.event_dim)

r"""Likelihoods: modules whose ``forward(params)`` returns p(x | z).

``params`` is what the decoder puts out, of shape (..., \*event_shape); every dimension of an image is an event
dimension, so log-probabilities are nats per image.  ``binary`` says which values of x the likelihood is a density
for.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.registry import Registry


class Likelihood(nn.Module):
    """Base of the likelihoods.

    A new one subclasses this, sets ``binary`` (True: x is 0 or 1; False: any real number) and writes
    ``forward(params)``, declaring ``self.event_dim`` event dimensions.

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
    """

    binary: bool

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

    binary = True

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=params).to_event(self.event_dim)


@LIKELIHOODS.register("gaussian")
class Gaussian(Likelihood):
    """Independent normal pixels around the decoder's output, with one learned scale.

    Args:
        event_shape: the shape of one datum.
        scale: the standard deviation, in pixel units, or where learning it starts.
        learn_scale: whether sigma is a parameter.
    """

    binary = False
    log_scale: Tensor

    def __init__(self, event_shape: tuple[int, ...], scale: float = 1.0, learn_scale: bool = True) -> None:
        super().__init__(event_shape)
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Normal(params, self.log_scale.exp()).to_event(self.event_dim)

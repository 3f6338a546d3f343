"""Conditional distributions: modules whose ``forward(features)`` returns one, of batch shape (...) for (..., F)."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class DiagonalNormal(nn.Module):
    """N(mu, diag sigma^2), with mu and log sigma linear in the features.

    Example:
        >>> from pyro_vae.conditionals import DiagonalNormal
        >>> q = DiagonalNormal(num_features=8, size=2)(torch.rand(3, 8))
        >>> q.batch_shape, q.event_shape
        (torch.Size([3]), torch.Size([2]))
    """

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.loc = nn.Linear(num_features, size)
        self.log_scale = nn.Linear(num_features, size)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The distribution, with batch shape (...) and event shape (size,)."""
        heads = (self.loc, self.log_scale)  # in one product, which is faster than two narrow ones
        weight, bias = (torch.cat([getattr(head, name) for head in heads]) for name in ("weight", "bias"))
        loc, log_scale = nn.functional.linear(features, weight, bias).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)


class Categorical(nn.Module):
    """A distribution over labels, from logits that are linear in the features.

    Example:
        >>> from pyro_vae.conditionals import Categorical
        >>> probs = Categorical(num_features=8, size=10)(torch.rand(3, 8)).probs
        >>> probs.shape, torch.allclose(probs.sum(-1), torch.ones(3))
        (torch.Size([3, 10]), True)
    """

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.logits = nn.Linear(num_features, size)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The distribution over labels, of batch shape (...) for features of shape (..., F)."""
        return dist.Categorical(logits=self.logits(features))


class Conditional(nn.Module):
    """A distribution given values: an encoder, and the conditional distribution of its features.

    Example:
        >>> from pyro_vae.conditionals import Conditional, DiagonalNormal
        >>> from pyro_vae.networks import MLP
        >>> encoder = MLP(hidden=(16,)).encoder([(1, 8, 8), (10,)])
        >>> q = Conditional(encoder, DiagonalNormal(encoder.num_features, 2))
        >>> q(torch.rand(3, 1, 8, 8), torch.eye(10)[:3]).mean.shape
        torch.Size([3, 2])
    """

    def __init__(self, encoder: nn.Module, family: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.family = family

    def forward(self, *given: Tensor) -> dist.TorchDistribution:
        """The distribution, from the values that it is given."""
        conditional: dist.TorchDistribution = self.family(self.encoder(*given))
        return conditional

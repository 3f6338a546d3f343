"""Likelihoods of the values that are there.

Pixels are independent given z, so that summing over a missing one leaves the product of the others.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.errors import InputError


@runtime_checkable
class KnowsMissing(Protocol):
    """A distribution whose log-probability of one pixel depends on which others are there.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.likelihoods import KnowsMissing
        >>> isinstance(dist.Normal(0.0, 1.0), KnowsMissing)  # scores a pixel whatever the others are
        False
    """

    def log_prob_of_seen(self, value: Tensor, missing: Tensor) -> Tensor:
        """The log-probability of each pixel, 0 where it is missing."""
        ...


class SeenPixels(dist.TorchDistribution):
    """Independent pixels of which some may be missing, NaN: those have a log-probability of 0.

    Args:
        base: the distribution of the pixels.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.likelihoods import SeenPixels
        >>> SeenPixels(dist.Bernoulli(torch.tensor([0.5, 0.5]))).log_prob(torch.tensor([1.0, torch.nan]))
        tensor([-0.6931,  0.0000])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: dist.TorchDistribution) -> None:
        self.base, self.has_rsample = base, base.has_rsample
        super().__init__(base.batch_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return cast(constraints.Constraint, self.base.support)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> SeenPixels:
        return SeenPixels(self.base.expand(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        missing = value.isnan()
        if isinstance(self.base, KnowsMissing):
            return self.base.log_prob_of_seen(value, missing)
        return torch.where(missing, 0.0, self.base.log_prob(torch.where(missing, 0.0, value)))


def leave_out_missing(likelihood: nn.Module) -> None:
    """Make a likelihood one of the values that are there, whenever it is asked from now on.

    Args:
        likelihood: independent pixels; 0 must be a value of theirs, which stands in for the missing ones.

    Example:
        >>> from pyro_vae.likelihoods import Gaussian, leave_out_missing
        >>> likelihood, x = Gaussian((3,)), torch.tensor([0.5, torch.nan, -1.0])
        >>> leave_out_missing(likelihood)
        >>> there = torch.distributions.Normal(0.0, 1.0).log_prob(x[[0, 2]]).sum()
        >>> torch.allclose(likelihood(torch.zeros(3)).log_prob(x), there)
        True
    """
    likelihood.register_forward_hook(_of_seen)


def _of_seen(likelihood: nn.Module, _: Any, p: dist.TorchDistribution) -> dist.TorchDistribution:
    if not isinstance(p, dist.Independent) or p.base_dist.event_shape:
        raise InputError(
            "a likelihood of independent pixels, to leave out missing ones",
            f"{type(likelihood).__name__}, whose pixels depend on each other",
            "fill the missing values, or use --likelihood gaussian",
        )
    return dist.Independent(SeenPixels(p.base_dist), p.reinterpreted_batch_ndims)

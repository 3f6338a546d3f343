r"""The part of a guide for a site that all rows share: a normal whose parameters are not a function of data.

    q(v) = N(T^{-1}(v); mu, diag sigma^2) |det dT^{-1}/dv|,

T from R^D onto the site's support, as Pyro's ``AutoNormal`` has it.  It begins near the prior's median.
"""

from __future__ import annotations

import math
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.guides.site_distribution import is_identity, onto

INIT_SCALE = 0.1
FARTHEST_START = 10.0  # from 0 in an unconstrained space; a corner of a simplex is not a place to start from


class SharedNormal(nn.Module):
    r"""A normal in the unconstrained space of a site, diagonal, with parameters of its own.

    Args:
        draws: values of the site, shape (S, \*plates, \*event_shape), whose median it begins near.
        support: of the site.
        event_dim: of the site.

    Example:
        >>> import torch
        >>> from pyro.distributions import constraints
        >>> from pyro_vae.guides.shared import SharedNormal
        >>> q = SharedNormal(torch.tensor([[2.0, 3.0]]), constraints.positive, event_dim=0)()
        >>> q.batch_shape, bool((q.sample() > 0).all())
        (torch.Size([2]), True)
    """

    def __init__(self, draws: Tensor, support: constraints.Constraint, event_dim: int) -> None:
        super().__init__()
        self._support = support
        transform = onto(support)
        free = transform.inv(draws)
        self._free_dim = event_dim + free.dim() - draws.dim()
        loc = torch.where(free.isfinite(), free, torch.nan).nanmedian(0).values.nan_to_num()
        self.loc = nn.Parameter(loc if is_identity(transform) else loc.clamp(-FARTHEST_START, FARTHEST_START))
        self.log_scale = nn.Parameter(torch.full_like(loc, math.log(INIT_SCALE)))

    def forward(self) -> dist.TorchDistribution:
        """The distribution of the site, of the batch shape of its plates."""
        base = dist.Normal(self.loc, self.log_scale.exp()).to_event(self._free_dim)
        transform = onto(self._support, cache_size=1)  # its own for each run, so that nothing of a run is kept
        if is_identity(transform):
            return base
        return cast(dist.TorchDistribution, dist.TransformedDistribution(base, [transform]))

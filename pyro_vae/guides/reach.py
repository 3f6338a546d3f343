r"""Maps onto a support that stay maps in 32 bits, far out where values cannot be told apart any more.

A guide draws u in R^D and maps it onto a site's support, v = T(u).  Beyond some distance from 0 the value is the same
for all u: exp(u) is 0, or infinite.  With the density of that one value everywhere out there,

    log p(T(u)) + log |det dT/du|

has no integral where the prior has much of its mass near an end of its support, as a gamma distribution of shape 0.1
or a Dirichlet of 1/30 has, and a bound made of it is none: it rises without end as q moves out or grows wide.  So the
density falls by e for each unit beyond, and what lies there counts for no more than it has.  For the same reason the
inverse is no way back to u: a draw is scored at the u that it was made of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.distributions.utils import _sum_rightmost

FARTHEST = 80.0  # exp of what is farther is 0 or infinite in 32 bits


class WithinReach(Transform):
    """A bijection onto a support, with the value at the farthest point for all that lies beyond.

    Args:
        base: the bijection, from the real numbers.
        cache_size: 1 to keep the vector of the last value, which its inverse cannot find once it is far out.

    Example:
        >>> import torch
        >>> from pyro_vae.guides.reach import WithinReach
        >>> from torch.distributions.transforms import ExpTransform
        >>> u = torch.tensor([1.0, -80.0, -85.0])
        >>> onto = WithinReach(ExpTransform())
        >>> (onto(u) > 0).all(), onto.log_abs_det_jacobian(u, onto(u))
        (tensor(True), tensor([  1., -80., -85.]))
    """

    bijective = True

    def __init__(self, base: Transform, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.base = base

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        """What it maps from."""
        return self.base.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """What it maps onto."""
        return self.base.codomain

    def with_cache(self, cache_size: int = 1) -> WithinReach:
        """The same map with a cache of its own."""
        return WithinReach(self.base, cache_size)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of what the map stretches volumes by, less what lies beyond its reach."""
        within = x.clamp(-FARTHEST, FARTHEST)
        beyond = _sum_rightmost((x - within).abs(), self.domain.event_dim)
        return self.base.log_abs_det_jacobian(within, y) - beyond

    def forward_shape(self, shape: Any) -> Any:
        """The shape of a value, from that of a vector."""
        return self.base.forward_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        """The shape of a vector, from that of a value."""
        return self.base.inverse_shape(shape)

    def _call(self, x: Tensor) -> Tensor:
        value: Tensor = self.base(x.clamp(-FARTHEST, FARTHEST))
        if isinstance(self.codomain, type(constraints.simplex)):  # whose shares are products, and may come out as 0
            return value.clamp(min=torch.finfo(value.dtype).tiny)
        return value

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base.inv(y)

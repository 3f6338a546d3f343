r"""A distribution of vectors as one of the values of a site: constrained, shaped, and spread over plates.

A family gives q(u | features) over R^D, with one vector u for each row.  A site may want something else of each row:
values on a support, v = T(u), an event of several dimensions, or values in all the entries of further plates.  Then

    log q(v) = log q(u) - log |det dT/du|,        u = T^{-1}(v),

and where further plates stand around the site, log q(u), which is not a sum over their entries, is shared out evenly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from pyro_vae.guides.reach import WithinReach

Sizes = tuple[int, ...]
WIDEST = 2.0


class SiteLayout(nn.Module, ABC):
    """How the value of a site lies in memory, and as one vector of features for each row.

    A kind of site says what its q is made of, and how a value enters the encoders of other sites.

    Args:
        batch_shape: the sizes of the site's plates, from the outermost dimension to the last.
        event_shape: of its value.
        data_dim: the dimension of the plate over data; None for a site that is shared by all rows.

    Attributes:
        size: how many numbers q is made of, and as many features is a value.
        num_plates: how many plates there are.
        conditional: makes q's numbers from features; None where the guide's family does.
    """

    conditional: Callable[[int, int], nn.Module] | None = None

    def __init__(self, batch_shape: Sizes, event_shape: Sizes, data_dim: int | None) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.num_plates = len(batch_shape)
        data = None if data_dim is None else self.num_plates + data_dim
        self._others = [i for i in range(self.num_plates) if i != data]
        self.sizes = [batch_shape[i] for i in self._others]
        self.num_entries = math.prod(self.sizes)
        self.size = self.num_entries * math.prod(event_shape)

    @abstractmethod
    def distribution(self, q: Any) -> dist.TorchDistribution:
        """The distribution of a value, from what a conditional gives."""

    @abstractmethod
    def features(self, value: Tensor) -> Tensor:
        """What encoders see of a value: a vector for each row."""

    def axes(self, num_dims: int) -> list[int]:
        """Where the plates but that over data lie among the batch dimensions of a value."""
        return [num_dims - self.num_plates + i for i in self._others]

    def gather(self, value: Tensor, event_dim: int) -> Tensor:
        """Values of some event dimensions as vectors, with a dimension of one entry for each other plate."""
        missing = self.num_plates + event_dim - value.dim()
        value = value[(None,) * missing] if missing > 0 else value
        batch = value.dim() - event_dim
        axes = self.axes(batch)
        sizes = list(value.shape)
        for axis, size in zip(axes, self.sizes, strict=True):
            sizes[axis] = size  # an enumerated value has one entry for all of a plate
        rows = batch - len(axes)
        moved = value.expand(sizes).movedim(axes, list(range(rows, batch)))
        flat = moved.flatten(rows) if event_dim or axes else moved.unsqueeze(-1)
        for axis in axes:
            flat = flat.unsqueeze(axis)
        return flat

    def scatter(self, flat: Tensor, event_shape: Sizes) -> Tensor:
        """Values of an event shape from vectors; the way back from ``gather``."""
        missing = self.num_plates + 1 - flat.dim()
        flat = flat[(None,) * missing] if missing > 0 else flat
        axes = self.axes(flat.dim() - 1)
        kept = flat.squeeze(axes) if axes else flat
        start = kept.dim() - 1
        value = kept.reshape(*kept.shape[:-1], *self.sizes, *event_shape)
        return value.movedim(list(range(start, start + len(axes))), axes)


class ContinuousLayout(SiteLayout):
    """A site of values with a density, as vectors of R^D: where the prior is far from 0 and 1, in units of its own.

    Args:
        batch_shape: the sizes of the site's plates, from the outermost dimension to the last.
        event_shape: of its value.
        data_dim: the dimension of the plate over data; None for a site that is shared by all rows.
        support: of its value.
        draws: values of the prior, in the first dimension; what is usual for them is 0, and how they differ 1.

    Example:
        >>> import torch
        >>> from pyro.distributions import constraints
        >>> from pyro_vae.guides.site_distribution import ContinuousLayout
        >>> layout = ContinuousLayout((5, 3), (), -2, constraints.positive)  # a plate of three in each row
        >>> u = layout.features(torch.ones(5, 3))
        >>> u.shape, layout.free(u).shape
        (torch.Size([5, 1, 3]), torch.Size([5, 3]))
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        batch_shape: Sizes,
        event_shape: Sizes,
        data_dim: int | None,
        support: constraints.Constraint,
        draws: Tensor | None = None,
    ) -> None:
        super().__init__(batch_shape, event_shape, data_dim)
        self.support, self.transform = support, onto(support)
        self.free_shape = tuple(self.transform.inverse_shape(torch.Size(event_shape)))
        self.size = self.num_entries * math.prod(self.free_shape)
        center, spread = _units(None if draws is None else self.transform.inv(draws), self.free_shape)
        if not is_identity(self.transform):  # what a transform makes of far tails is out of the prior's reach
            spread = spread.clamp(max=WIDEST)
        self.register_buffer("center", center)
        self.register_buffer("spread", spread)
        self._units: tuple[tuple[int, int], bool] | None = None
        self._has_units()

    def distribution(self, q: dist.TorchDistribution) -> dist.TorchDistribution:
        plain = (
            is_identity(self.transform) and not self._others and len(self.event_shape) == 1 and not self._has_units()
        )
        return q if plain else SiteDistribution(q, self)

    def _has_units(self) -> bool:
        """Whether center and spread are not 0 and 1; looked at anew where they are loaded, not at each call."""
        versions = self.center._version, self.spread._version
        if self._units is None or self._units[0] != versions:
            self._units = versions, bool((self.center != 0).any() or (self.spread != 1).any())
        return self._units[1]

    def features(self, value: Tensor) -> Tensor:
        return self.gather((self.transform.inv(value) - self.center) / self.spread, len(self.free_shape))

    def free(self, u: Tensor) -> Tensor:
        """Vectors as unconstrained values of the site."""
        return self.center + self.spread * self.scatter(u, self.free_shape)


def _units(free: Tensor | None, shape: Sizes) -> tuple[Tensor, Tensor]:
    """The median of unconstrained draws, and how far a sixth of them lie from it; 0 and 1 where these are near."""
    center, spread = torch.zeros(shape), torch.ones(shape)
    if free is None:
        return center, spread
    rows = torch.where(free.isfinite(), free, torch.nan).reshape(-1, *shape)
    low, middle, high = (rows.nanquantile(q, 0).nan_to_num() for q in (0.16, 0.5, 0.84))
    half = torch.minimum(high - middle, middle - low).clamp(1e-3, 1e3)
    near = (middle.abs() < 1) & (half > 0.5) & (half < 2)
    return torch.where(near, center, middle), torch.where(near, spread, half)


def onto(support: constraints.Constraint, cache_size: int = 0) -> Transform:
    """The bijection from the real numbers onto a support, which stays one in 32 bits."""
    transform: Transform = biject_to(support)
    return transform if is_identity(transform) else WithinReach(transform, cache_size)


def is_identity(transform: Transform) -> bool:
    """Whether a transform changes nothing, as that onto the real numbers."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts


class SiteDistribution(dist.TorchDistribution):
    """The values of a site, from the distribution of vectors.

    Args:
        base: of vectors, with a dimension of one entry in the place of every plate but that over data.
        layout: how a value lies in a vector.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: dist.TorchDistribution, layout: ContinuousLayout) -> None:
        if len(base.batch_shape) < layout.num_plates:
            base = base.expand((1,) * (layout.num_plates - len(base.batch_shape)) + base.batch_shape)
        self.base, self.layout, self.has_rsample = base, layout, base.has_rsample
        batch = list(base.batch_shape)
        for axis, size in zip(layout.axes(len(batch)), layout.sizes, strict=True):
            batch[axis] = size
        self._drawn: list[tuple[Tensor, Tensor]] = []  # the last value with its vector, shared with what is expanded
        super().__init__(torch.Size(batch), torch.Size(layout.event_shape), validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return self.layout.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> SiteDistribution:
        base = list(batch_shape)
        for axis in self.layout.axes(len(base)):
            base[axis] = 1
        new = SiteDistribution(self.base.expand(torch.Size(base)), self.layout)
        new._drawn = self._drawn
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.image(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.image(self.base.rsample(torch.Size(sample_shape)))

    def vector(self, value: Tensor) -> Tensor:
        """The vector of a value: of its own last draw, the one that it was made of."""
        if self._drawn and self._drawn[0][0] is value:
            return self._drawn[0][1]
        return self.layout.features(value)

    def log_prob(self, value: Tensor) -> Tensor:
        layout = self.layout
        u = self.vector(value)  # the density of some flows is known at their own draws alone, by their identity
        free = layout.free(u)
        jacobian = layout.transform.log_abs_det_jacobian(free, value)
        batch = value.dim() - len(layout.event_shape)
        jacobian = jacobian.reshape(*jacobian.shape[:batch], -1).sum(-1)
        return self.base.log_prob(u) / layout.num_entries - jacobian - layout.spread.log().sum()

    def image(self, u: Tensor) -> Tensor:
        """The value that a vector becomes."""
        value: Tensor = self.layout.transform(self.layout.free(u))
        self._drawn[:] = [(value, u)]
        return value

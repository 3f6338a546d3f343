r"""Numbers that are standardized inside: a likelihood of (x - m) / s, as a density of x in its own units.

m and s are the mean and the standard deviation of each entry over the training rows; an entry that never changes keeps
s = 1.  Encoders see (x - m) / s, and the decoder puts out the parameters of its distribution p, so that

    log p(x | z) = sum_d [log p((x_d - m_d) / s_d | eta_d(z)) - log s_d],

which is a density per unit of x.  Draws and means are in these units too.  m and s are buffers: a run keeps them with
its weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.likelihoods.seen_pixels import SeenPixels

NO_SPREAD = 1e-6  # of the largest number of an entry: it never changes, but for rounding


class InUnits(dist.TransformedDistribution):
    """A distribution of standardized numbers, in the units that they had before.

    Args:
        base: the distribution of independent numbers.
        location: what was taken off, of a shape that broadcasts.
        spread: what the rest was divided by.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.likelihoods import InUnits
        >>> heights = InUnits(dist.Normal(torch.zeros(1), 1.0), torch.tensor([170.0]), torch.tensor([10.0]))
        >>> heights.mean, heights.log_prob(torch.tensor([180.0])).exp()  # a tenth of a density of 0.242
        (tensor([170.]), tensor([0.0242]))
    """

    def __init__(self, base: dist.TorchDistribution, location: Tensor, spread: Tensor) -> None:
        self.location, self.spread = location, spread
        super().__init__(base, [dist.transforms.AffineTransform(location, spread)], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.location + self.spread * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.spread.square() * self.base_dist.variance

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> InUnits:
        return InUnits(self.base_dist.expand(batch_shape), self.location, self.spread)

    def log_prob_of_seen(self, value: Tensor, missing: Tensor) -> Tensor:
        """The log-probability of each entry, 0 where it is missing."""
        standard = torch.where(missing, torch.nan, (value - self.location) / self.spread)
        scores = SeenPixels(self.base_dist).log_prob(standard)
        return torch.where(missing, 0.0, scores - self.spread.log())


class _Standard(nn.Module):
    """The view of x in standard deviations from the mean."""

    location: Tensor
    spread: Tensor

    def __init__(self, event_shape: tuple[int, ...], view: nn.Module) -> None:
        super().__init__()
        self.view = view
        self.register_buffer("location", torch.zeros(event_shape))
        self.register_buffer("spread", torch.ones(event_shape))

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.view((x - self.location) / self.spread)
        return seen


class Standardized(Likelihood):
    r"""A likelihood of standardized numbers, as one of the numbers in their own units.

    Args:
        likelihood: p((x - m) / s | z), of independent real numbers.

    Raises:
        InputError: if it is one of other values.

    Example:
        >>> from pyro_vae.likelihoods import Gaussian, Standardized
        >>> likelihood = Standardized(Gaussian((2,)))
        >>> likelihood.learn([torch.tensor([[1.0, 100.0], [3.0, 300.0]])])
        >>> likelihood.seen.location, likelihood.seen.spread
        (tensor([  2., 200.]), tensor([  1., 100.]))
        >>> likelihood.view()(torch.tensor([[3.0, 100.0]]))
        tensor([[ 1., -1.]])
        >>> likelihood(torch.zeros(2)).mean
        tensor([  2., 200.])
    """

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__(likelihood.event_shape)
        self.likelihood = likelihood
        self.seen = _Standard(likelihood.event_shape, likelihood.view())
        with torch.no_grad():
            p = likelihood(torch.zeros(likelihood.params_shape))
        if not isinstance(p, dist.Independent) or p.base_dist.support is not constraints.real:
            raise InputError(
                "a likelihood of any real numbers for --standardize, gaussian or laplace",
                f"{type(likelihood).__name__}, which is one of other values",
                "leave out --standardize, or use --likelihood gaussian",
            )

    @property
    def params_shape(self) -> tuple[int, ...]:
        return self.likelihood.params_shape

    @property
    def seen_shape(self) -> tuple[int, ...]:
        return self.likelihood.seen_shape

    def view(self) -> nn.Module:
        return self.seen

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        p = self.likelihood(params)
        return dist.Independent(InUnits(p.base_dist, self.seen.location, self.seen.spread), self.event_dim)

    def learn(self, rows: Iterable[Tensor]) -> None:
        r"""Take mean and standard deviation of each entry from rows, of shape (N, \*event_shape) in each part.

        Args:
            rows: the training rows, in parts; NaN where a value is missing.

        Raises:
            InputError: if an entry has no value at all.
        """
        count, location, squares = (torch.zeros_like(self.seen.location, dtype=torch.float64) for _ in range(3))
        for part in rows:  # merged as Chan, Golub and LeVeque (1979) do, in double precision: a mean may be large
            values = part.double()
            there = (~values.isnan()).sum(0)
            own = values.nan_to_num(0.0).sum(0) / there.clamp(min=1)
            shift = own - location
            squares += (values - own).nan_to_num(0.0).square().sum(0)
            squares += shift.square() * count * there / (count + there).clamp(min=1)
            count = count + there
            location += shift * there / count.clamp(min=1)
        if (count == 0).any():
            found = f"{int((count == 0).sum())} without any"
            raise InputError("a value of each column or pixel among the training rows", found, "leave those out")
        spread = (squares / count).sqrt()
        spread = torch.where(spread > NO_SPREAD * location.abs(), spread, 1.0)
        self.seen.location.copy_(location)
        self.seen.spread.copy_(spread)

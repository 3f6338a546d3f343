r"""Whether ranks are uniform: the empirical distribution of M ranks against bounds that hold at all points at once.

Of M independent ranks, uniform on 0, …, L, the number below j is binomial, Bin(M, j / (L + 1)), for each j.  With F the
distribution function of that binomial and c_j the number seen, the smallest of the pointwise two-sided p-values,

    gamma = min_j min(1, 2 P(Bin <= c_j), 2 P(Bin >= c_j)),

says how far the empirical distribution leaves the diagonal at its worst point.  The exact probability that it goes as
far comes from a recursion over the points: the increments of the counts are independent Poisson numbers given their
sum.  Turned around, a level of gamma is a band for the whole curve.  Säilynoja, Bürkner and Vehtari, *Graphical Test
for Discrete Uniformity and Its Applications in Goodness-of-Fit Evaluation and Multiple Sample Comparison*, 2022.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pyro_vae.shapes import Float, Int

MOST_POINTS = 100


class UniformRanks:
    """The law of M independent ranks that are uniform on 0, …, L.

    Args:
        num_data: M.
        num_draws: L.
    """

    def __init__(self, num_data: int, num_draws: int) -> None:
        self.num_data, self.num_draws = num_data, num_draws
        steps = min(num_draws + 1, MOST_POINTS)
        self.points = np.unique(np.linspace(0, num_draws + 1, steps + 1).round().astype(np.int64))[1:-1]

    @property
    def shares(self) -> np.ndarray:
        """The expected shares of ranks below the points, shape (J,)."""
        return self.points / (self.num_draws + 1)

    @cached_property
    def pointwise(self) -> np.ndarray:
        """The two-sided p-value of each count at each point, shape (J, M + 1)."""
        from scipy.special import bdtr, bdtrc

        counts, shares = np.arange(self.num_data + 1.0), self.shares[:, None]
        below = bdtr(counts, self.num_data, shares)
        above = np.concatenate([np.ones_like(shares), bdtrc(counts[:-1], self.num_data, shares)], 1)
        both: np.ndarray = np.minimum(1.0, 2 * np.minimum(below, above))
        return both

    def gamma(self, ranks: Int[Tensor, "M Q"]) -> Float[Tensor, "Q"]:
        """The smallest pointwise p-value over the points, shape (Q,), of ranks of shape (M, Q)."""
        points = torch.as_tensor(self.points, device=ranks.device)
        bins = torch.bucketize(ranks.contiguous(), points, right=True)
        counts = bins.new_zeros((len(points) + 1, ranks.shape[1])).scatter_add_(0, bins, torch.ones_like(bins))
        below = counts.cumsum(0)[:-1]
        return torch.as_tensor(self.pointwise, device=ranks.device).gather(1, below).amin(0)

    def band(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest count at each point whose pointwise p-value is above a level, shape (J,)."""
        inside = self.pointwise > level * (1 + 1e-9)
        return inside.argmax(1), self.num_data - inside[:, ::-1].argmax(1)

    def p_value(self, gamma: float) -> float:
        """The probability that uniform ranks go as far as gamma or farther, exactly."""
        from scipy.special import gammaln

        if gamma >= 1:
            return 1.0
        lowest, highest = self.band(gamma)
        numbers, factorials = np.arange(self.num_data + 1), gammaln(np.arange(self.num_data + 1) + 1.0)

        def poisson(mean: float) -> np.ndarray:
            pmf: np.ndarray = np.exp(numbers * np.log(mean) - mean - factorials)
            return pmf

        edges = np.concatenate([[0.0], self.shares, [1.0]])
        steps = {width: poisson(self.num_data * width) for width in np.unique(np.diff(edges).round(12))}
        mass, start = np.ones(1), 0  # of the counts start, start + 1, … at the last point
        for low, high, width in zip(lowest, highest, np.diff(edges).round(12), strict=False):
            low = max(low, start)
            mass = np.convolve(mass, steps[width][: high - start + 1])[low - start : high - start + 1]
            start = low
        rest = self.num_data - start - np.arange(len(mass))
        inside = (mass * steps[np.diff(edges).round(12)[-1]][rest]).sum() / poisson(self.num_data)[-1]
        return float(np.clip(1 - inside, 0, 1))


def ranks_among(values: Tensor, seed: int = 0) -> Tensor:
    """The rank of each value among the L others, between 0 and L, ties broken at random; shape (L + 1, M, Q).

    Args:
        values: shape (L + 1, M, Q).
        seed: the seed of the ties.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(values.shape[:2], generator=generator).argsort(0).to(values.device).unsqueeze(-1)
    order = order.expand(values.shape)
    shuffled = values.gather(0, order).argsort(dim=0, stable=True).argsort(dim=0)
    return torch.empty_like(shuffled).scatter_(0, order, shuffled)

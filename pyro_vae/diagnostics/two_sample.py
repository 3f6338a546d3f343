r"""Whether two samples come from one distribution: the energy distance, with a permutation test.

For independent X, X' ~ P and Y, Y' ~ Q the squared energy distance

    D^2(P, Q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

is 0 exactly where P = Q, and D^2 / (2 E|X - Y|) lies between 0 and 1.  The estimate replaces each expectation by the
mean over pairs of different points, so that it is unbiased and may dip below 0.  Székely and Rizzo, *Energy Statistics:
A Class of Statistics Based on Distances*, 2013.  Coordinates are first divided by their standard deviation in the
pooled sample, which no permutation changes.

The p-value is the share of B random relabelings, the one at hand among them, whose distance is at least as large: exact
for any sample sizes.  Its smallest value is 1 / (B + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.shapes import Float

PERMUTATIONS_AT_ONCE = 100


@dataclass(frozen=True)
class EnergyTest:
    """The energy distance between two samples.

    Args:
        distance: the estimate of D^2, in pooled standard deviations.
        relative: the same over 2 E|X - Y|: 0 for equal distributions, at most 1.
        p_value: the p-value of the permutation test.
    """

    distance: float
    relative: float
    p_value: float

    def as_dict(self) -> dict[str, float]:
        """The metrics by name."""
        return {"distance": self.distance, "relative": self.relative, "p_value": self.p_value}


def energy_test(
    first: Float[Tensor, "n D"], second: Float[Tensor, "m D"], num_permutations: int = 999, seed: int = 0
) -> EnergyTest:
    """Compare two samples.

    Args:
        first: n points, shape (n, D), n at least 2.
        second: m points, shape (m, D), m at least 2.
        num_permutations: B.
        seed: the seed of the permutations.
    """
    n, m = len(first), len(second)
    pooled = torch.cat([first, second]).detach().double().cpu()
    spread = pooled.std(0)
    distances = torch.cdist(*(2 * ((pooled - pooled.mean(0)) / torch.where(spread > 0, spread, 1.0),)))
    generator = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.randperm(n + m, generator=generator) for _ in range(num_permutations)])
    members = torch.cat([torch.arange(n + m).unsqueeze(0), shuffles])[:, :n]  # of the first sample; first as it is
    within = [_within(distances, chunk) for chunk in members.split(PERMUTATIONS_AT_ONCE)]
    of_first, of_second = torch.cat([pair[0] for pair in within]), torch.cat([pair[1] for pair in within])
    between = (distances.sum() - of_first - of_second) / (n * m)  # both orders: twice the mean
    squared = between - of_first / (n * (n - 1)) - of_second / (m * (m - 1))
    tolerance = 1e-12 * between[0].abs()
    p_value = (squared >= squared[0] - tolerance).double().mean().item()
    relative = (squared[0] / between[0]).item() if between[0] > 0 else 0.0
    return EnergyTest(squared[0].item(), relative, p_value)


def _within(distances: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of distances inside the first sample and inside the second, of each labelling."""
    of_first = torch.zeros(len(members), len(distances), dtype=distances.dtype).scatter_(1, members, 1.0)
    product = of_first @ distances
    inside = (product * of_first).sum(1)
    crossing = product.sum(1) - inside
    return inside, distances.sum() - inside - 2 * crossing

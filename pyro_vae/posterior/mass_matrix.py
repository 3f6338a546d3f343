r"""A mass matrix with one dense block per datum.

The posteriors of N data are independent, so the covariance of their joint vector is block diagonal: N blocks of D by D,
estimated from the draws of the warm-up.  A diagonal mass matrix would leave the correlations within each posterior for
the trajectories to work off; a dense one over all N D numbers would have to find out that nearly all of its entries are
zero.  Of n draws with covariance S the estimate is, with five draws' worth of trust in a variance of 0.001, as in
Stan, and 2 D draws' worth in "no correlation",

    (n C + 2 D diag C) / (n + 2 D),    C = (n S + 5 * 0.001 I) / (n + 5),

which is positive definite whatever the draws are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Values = dict[str, Tensor]
Blocks = dict[tuple[str, ...], Tensor]


class BlockPerDatum:
    """What Pyro's HMC kernels ask of a mass matrix, for one site "u" of shape (N, D).

    Momenta are r = L^{-T} e with e standard normal and L L^T = C, the inverse mass matrix, block by block.

    Args:
        covariance: C to start from, shape (N, D, D).
    """

    def __init__(self, covariance: Tensor) -> None:
        self.shape = covariance.shape[:2]
        self._set(covariance)
        self.mass_matrix_size: dict[tuple[str, ...], int] = {}
        self._draws: list[Tensor] = []

    @property
    def inverse_mass_matrix(self) -> Blocks:
        """C by the names of its sites, shape (N, D, D)."""
        return {names: self._factor @ self._factor.mT for names in self.mass_matrix_size}

    def configure(
        self, mass_matrix_shape: dict[tuple[str, ...], Any], adapt_mass_matrix: bool = True, options: Any = None
    ) -> None:
        """Take the names of the sites."""
        (self._names,) = mass_matrix_shape
        self.mass_matrix_size = {self._names: self.shape[0] * self.shape[1]}

    def update(self, z: Values, z_grad: Values) -> None:
        """Take note of a draw of the warm-up."""
        self._draws.append(z["u"].detach())

    def end_adaptation(self) -> None:
        """Estimate C from the draws noted since the last time."""
        self._set(shrunk_covariance(torch.stack(self._draws)))
        self._draws = []

    def kinetic_grad(self, r: Values) -> Values:
        """The velocity C r."""
        return {"u": self._times(self._covariance, r["u"])}

    def scale(self, r_unscaled: Blocks, r_prototype: Values) -> Values:
        """Momenta from standard normal numbers."""
        return {"u": self._times(self._inverse_factor.mT, r_unscaled[self._names].view(self.shape))}

    def unscale(self, r: Values) -> Blocks:
        """The standard normal numbers of momenta."""
        return {self._names: self._times(self._factor.mT, r["u"]).reshape(-1)}

    def _set(self, covariance: Tensor) -> None:
        self._covariance = covariance
        self._factor = torch.linalg.cholesky(covariance)
        unit = torch.eye(self.shape[1], dtype=covariance.dtype, device=covariance.device)
        self._inverse_factor = torch.linalg.solve_triangular(self._factor, unit, upper=False)

    @staticmethod
    def _times(blocks: Tensor, vectors: Tensor) -> Tensor:
        return (blocks @ vectors.unsqueeze(-1)).squeeze(-1)


def shrunk_covariance(draws: Tensor) -> Tensor:
    """The covariance of each datum's draws, as the module's documentation says, shape (N, D, D).

    Args:
        draws: shape (n, N, D).
    """
    count, num_data, size = draws.shape
    unit = torch.eye(size, dtype=draws.dtype, device=draws.device)
    if count == 1:
        return unit.repeat(num_data, 1, 1)
    centred = (draws - draws.mean(0)).movedim(0, 1)
    sound = (count / (count - 1) * (centred.mT @ centred) + 0.005 * unit) / (count + 5)
    return sound * (count + 2 * size * unit) / (count + 2 * size)

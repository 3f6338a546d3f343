r"""A mass matrix with one dense block a datum.

The posteriors of N data are independent, so the covariance of their joint vector is block diagonal: N blocks of D by D,
estimated from the draws of the warm-up and regularized as in Stan, (n C + 0.005 I) / (n + 5) for n draws of covariance
C.  A diagonal mass matrix would leave the correlations within each posterior for the trajectories to work off; a dense
one over all N D numbers would have to find out that nearly all of its entries are zero.
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
        num_data: N.
        size: D.
    """

    def __init__(self, num_data: int, size: int) -> None:
        self.shape = (num_data, size)
        self.mass_matrix_size: dict[tuple[str, ...], int] = {}
        self._draws: list[Tensor] = []

    @property
    def inverse_mass_matrix(self) -> Blocks:
        """C by the names of its sites, shape (N, D, D)."""
        return {names: self._factor @ self._factor.mT for names in self.mass_matrix_size}

    def configure(self, mass_matrix_shape: dict[tuple[str, ...], Any], adapt: bool, options: dict[str, Any]) -> None:
        """Start from the identity."""
        (names,) = mass_matrix_shape
        self.mass_matrix_size = {names: self.shape[0] * self.shape[1]}
        self._names, self._adapt = names, adapt
        self._set(torch.eye(self.shape[1], **options).expand(self.shape[0], -1, -1))

    def update(self, z: Values, z_grad: Values) -> None:
        """Take note of a draw of the warm-up."""
        self._draws.append(z["u"].detach())

    def end_adaptation(self) -> None:
        """Estimate C from the draws noted since the last time."""
        draws = torch.stack(self._draws, 1)  # (N, n, D)
        self._draws = []
        centred, count = draws - draws.mean(1, keepdim=True), draws.shape[1]
        covariance = centred.mT @ centred / max(count - 1, 1)
        unit = torch.eye(self.shape[1], dtype=draws.dtype, device=draws.device)
        self._set((count * covariance + 0.005 * unit) / (count + 5))

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
        self._covariance = covariance.contiguous()
        self._factor = torch.linalg.cholesky(covariance)
        unit = torch.eye(self.shape[1], dtype=covariance.dtype, device=covariance.device)
        self._inverse_factor = torch.linalg.solve_triangular(self._factor, unit, upper=False)

    @staticmethod
    def _times(blocks: Tensor, vectors: Tensor) -> Tensor:
        return (blocks @ vectors.unsqueeze(-1)).squeeze(-1)

"""Iterates of a training: some parameters, chosen once, as they were at even distances along the way.

Whether stochastic optimization has converged shows in these (see ``diagnostics.convergence``), not in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MAX_TRACKED_PARAMETERS = 200  # parameters that are followed
AN_EPOCH = 10  # iterates kept of each
MAX_ITERATES = 2000  # how many of the last are kept


class Iterates:
    """Keeps some unconstrained parameters, single numbers of them, as training goes on.

    Args:
        parameters: what is trained, by name; changed in place as it is.
        num_steps: the steps of an epoch.
        seed: the seed of the choice, if there are more than 200 numbers.
    """

    def __init__(self, parameters: Mapping[str, Tensor], num_steps: int, seed: int) -> None:
        self._every = max(1, num_steps // AN_EPOCH)
        self._rows: list[Tensor] = []
        generator = torch.Generator().manual_seed(seed)
        total = sum(parameter.numel() for parameter in parameters.values())
        chosen = torch.randperm(total, generator=generator)[:MAX_TRACKED_PARAMETERS].sort().values
        self._places: list[tuple[Tensor, Tensor]] = []
        self._names: list[str] = []
        start = 0
        for name, parameter in parameters.items():
            inside = chosen[(chosen >= start) & (chosen < start + parameter.numel())] - start
            start += parameter.numel()
            if len(inside):
                self._places.append((parameter, inside.to(parameter.device)))
                self._names += [f"{name}[{i}]" for i in inside.tolist()]

    @property
    def names(self) -> tuple[str, ...]:
        """The K numbers that are followed, each by its parameter and its place in it, counted through."""
        return tuple(self._names)

    @property
    def values(self) -> Tensor:
        """What was kept, the last iterates, shape (T, K)."""
        if not self._rows:
            return torch.zeros(0, len(self._names))
        return torch.stack(self._rows).cpu()

    def after(self, step: int) -> None:
        """Keep an iterate if one is due.

        Args:
            step: completed steps of the epoch.
        """
        if step % self._every:
            return
        with torch.no_grad():
            self._rows.append(torch.cat([parameter.view(-1)[places] for parameter, places in self._places]))
        del self._rows[:-MAX_ITERATES]

    def load(self, values: Tensor) -> None:
        """Put back what was kept, shape (T, K); nothing where it is of other parameters."""
        if values.shape[1:] == (len(self._names),):
            self._rows = list(values)

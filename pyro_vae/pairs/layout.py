"""Where the dimensions of a vectorized run lie, and how its tensors become numbers per datum.

A run of S draws under every joint value of the enumerated sites gives values of shape (enumerated…, S, plates…,
event…), where sizes of one may be left out on the left.  One of the plates is that over the N data; where there is
none, all data are one posterior and N is 1.

Where draws lie among the data, as rows of their own, the plate over data has S N rows, those of the first draw first,
and S is 1 until the rows are told apart again.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.traces import value_at
from pyro_vae.shapes import Float, Shaped


class Layout:
    """The dimensions of one run.

    Args:
        structure: the structure of the pair.
        guided: the guide's trace.
        num_samples: S.
        x: the data; sums have its dtype and device.
        as_rows: whether the draws lie among the data, which are S N rows then.
    """

    def __init__(self, structure: Structure, guided: Trace, num_samples: int, x: Tensor, as_rows: bool = False) -> None:
        self.structure = structure
        self.num_samples, self.as_rows = num_samples, as_rows
        self.num_labels = max(1, len(structure.enumerated))  # with no site that is enumerated, one label
        self.num_dims = self.num_labels + 1 + structure.nesting
        shapes = (value_at(guided, name).shape for name in structure.enumerated)
        self.labels = tuple(torch.broadcast_shapes((1,) * self.num_dims, *shapes)[: self.num_labels])
        num_data = 1 if structure.data_dim is None else x.shape[0]  # len would make a recorded number a plain one
        self._zero = x.new_zeros((1,) * self.num_labels + (1 if as_rows else num_samples, num_data))
        self.zero = self._apart(self._zero, -1)

    def total(self, log_probs: Iterable[Tensor]) -> Float[Tensor, "*enumerated S N"]:
        """The sum over sites and over every plate but the data's, of shape (enumerated…, S, N), or (1, S, N)."""
        total = self._zero
        for log_prob in log_probs:
            padded = log_prob.reshape((1,) * (self.num_dims - log_prob.dim()) + log_prob.shape)
            total = total + per_datum(padded, self.structure)
        return self._apart(total, -1)

    def features(self, value: Tensor, event_dim: int) -> Shaped[Tensor, "E S N D"]:
        """Values of a site, all that belongs to a datum in one row: (E, S, N, D), or (1, S, N, D) without a label."""
        value = value.reshape((1,) * (self.num_dims - value.dim() + event_dim) + value.shape)
        data = self.num_labels + 1
        if self.structure.data_dim is None:
            value = value.unsqueeze(data)
        else:
            value = value.movedim(data + self.structure.nesting + self.structure.data_dim, data)
        value = value.reshape(*value.shape[: data + 1], -1)
        labelled = any(size > 1 for size in value.shape[: self.num_labels])
        front = self.labels if labelled else (1,) * self.num_labels
        value = value.expand(*front, *self._zero.shape[-2:], -1)
        return self._apart(value, -2).flatten(0, -4)

    def _apart(self, value: Tensor, data: int) -> Tensor:
        """A value with draws and data told apart: (…, 1, S N, …) to (…, S, N, …)."""
        if not self.as_rows:
            return value
        return value.unflatten(data, (self.num_samples, -1)).squeeze(data - 2)


def per_datum(log_prob: Float[Tensor, "..."], structure: Structure) -> Float[Tensor, "... N"]:
    """The sum over every plate but the data's, (…, plates…) to (…, N)."""
    if not structure.nesting:
        return log_prob.unsqueeze(-1)
    for dim in range(-structure.nesting, 0):
        if dim != structure.data_dim:
            log_prob = log_prob.sum(dim, keepdim=True)
    return log_prob.flatten(-structure.nesting)

"""What a recording does in the place of what torch, or Pyro, does by asking for the values of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def num_classes(labels: Tensor, num_classes: int = -1) -> int:
    """Into how many classes a call of torch's ``one_hot`` sorts labels; -1 for as many as there are."""
    return num_classes


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """An indicator vector, of nothing for a label that is not a class, where torch's own would look at every label."""
    return (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).long()


def is_mask(index: Any) -> bool:
    """Whether an index chooses elements by truth values."""
    return isinstance(index, Tensor) and index.dtype == torch.bool


def is_one_number(value: Any) -> bool:
    """Whether a value is the same for all elements that it is assigned to."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, Tensor) and value.numel() == 1)


def masked(tensor: Tensor, mask: Tensor, value: Tensor | float | None = None) -> Tensor:
    """``tensor[mask]``, but everything, and ``tensor[mask] = value`` for such a value, or for one number."""
    if value is None:
        return tensor
    mask = mask.reshape(mask.shape + (1,) * (tensor.dim() - mask.dim()))
    return tensor.copy_(torch.where(mask, value, tensor))


@contextmanager
def without_onednn() -> Iterator[None]:
    """With torch's own kernels: an LSTM of oneDNN has a workspace that its backward pass does not find in a graph."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@contextmanager
def without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Without the hooks that tensors have; they are run where the gradients are put to use."""
    hooks = [(tensor._backward_hooks, dict(tensor._backward_hooks)) for tensor in tensors if tensor._backward_hooks]
    for present, _ in hooks:
        present.clear()
    try:
        yield
    finally:
        for present, kept in hooks:
            present.update(kept)

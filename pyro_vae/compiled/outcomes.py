"""What a run of a graph gives: a loss, and gradients that are put where ``backward`` would put them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A loss, and the gradients of the tensors that have one."""

    loss: Tensor
    tensors: list[Tensor]
    gradients: list[Tensor]

    def accumulate(self) -> None:
        """Add the gradients to those that the tensors have, as ``backward`` does."""
        taken: set[int] = set()
        there: list[Tensor] = []
        added: list[Tensor] = []
        for tensor, gradient in zip(self.tensors, self.gradients, strict=True):
            hooked = tensor._backward_hooks or tensor._post_accumulate_grad_hooks
            grad = tensor.grad if tensor.is_leaf and not hooked else None
            place = gradient.data_ptr()
            if grad is not None and grad.layout is torch.strided and not grad.requires_grad:
                there.append(grad)
                added.append(gradient)
            elif place not in taken and gradient.stride() == tensor.stride() and tensor.is_leaf and not hooked:
                tensor.grad = gradient
            else:
                torch.autograd.backward(tensor, gradient)
            taken.add(place)
        if there:
            with torch.no_grad():
                torch._foreach_add_(there, added)

"""The graph of gradients behind a loss: its leaves, and how old it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def next_function() -> int:
    """What the functions of the graph of gradients that are made from now on are numbered from."""
    with torch.inference_mode(False), torch.enable_grad():
        function: Any = torch.zeros((), requires_grad=True).clone().grad_fn
    return int(function._sequence_nr())


def leaves_behind(loss: Tensor, inputs: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The leaves of the graph of gradients behind a loss, as far as to some inputs; the number of its oldest function.

    Going back through what is older than a run, which can be done once, is left to whoever made it.
    """
    leaves, seen, ahead = [], {tensor.grad_fn for tensor in inputs}, [loss.grad_fn]
    oldest = sys.maxsize
    while ahead:
        function = ahead.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            leaves.append(function.variable)
        oldest = min(oldest, function._sequence_nr())
        ahead.extend(following for following, _ in function.next_functions)
    return leaves, oldest

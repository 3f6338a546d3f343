"""What a recorded graph knows of its values: their form, without their numbers.

Every node of a recording has one as ``node.meta["form"]``: a ``Form`` for a tensor, a list of them for several, None
for a tensor that is not strided.  Rewriting a graph for the compiler needs tensors that can be asked and worked on like
real ones, as ``node.meta["val"]``, which are many times dearer; ``describe`` makes them where a graph is compiled.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx


class Form(NamedTuple):
    """The form of a tensor."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def num_bytes(self) -> int:
        """What its elements take."""
        return math.prod(self.shape) * self.dtype.itemsize


def form_of(value: Any) -> Any:
    """The form of what an operation gave; what is no tensor stands for itself."""
    if isinstance(value, Tensor):
        is_strided = value.layout is torch.strided and not value.is_quantized
        return Form(value.shape, value.stride(), value.dtype, value.device) if is_strided else None
    return [*map(form_of, value)] if isinstance(value, (list, tuple)) else value


def describe(graph: fx.Graph) -> None:
    """Give each node of a recording a tensor of its form, of torch's fake ones, as ``make_fx`` does."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # late: half a second

    shapes = FakeTensorMode(allow_fallback_kernels=True)

    def made(form: Any) -> Any:
        if isinstance(form, Form):
            empty = torch.empty_strided(form.shape, form.strides, dtype=form.dtype, device="meta")
            return FakeTensor(shapes, empty, form.device)
        return [*map(made, form)] if isinstance(form, list) else form

    for node in graph.nodes:
        if "form" in node.meta:
            node.meta["val"] = made(node.meta["form"])

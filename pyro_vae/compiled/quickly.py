"""Two things that make a recording take half of its time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import proxy_tensor


@contextmanager
def described_quickly(shapes: FakeTensorMode) -> Iterator[None]:
    """Let make_fx note the shape of a result without running an operation for it, which takes a third of its time.

    Args:
        shapes: what the shapes are of.
    """
    usual = proxy_tensor.extract_val

    def describe(value: Any, *args: Any, **kwargs: Any) -> Any:
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or value.is_quantized:
            return usual(value, *args, **kwargs)
        with torch._C._DisableTorchDispatch():
            empty = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return FakeTensor(shapes, empty, value.device)

    with mock.patch.object(proxy_tensor, "extract_val", describe):
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage in the many objects of a recording, a fifth of a second each time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

"""Indices that are whole numbers in tensors.

``values[i]``, with a whole number i in a tensor, asks torch in C++ for its value, which a recording cannot know.  The
same entries are gathered by ``index_select``, which takes the number as data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def is_number(index: Any) -> bool:
    """Whether an index is a tensor that holds one whole number, and no dimension."""
    return isinstance(index, Tensor) and index.ndim == 0 and index.dtype in (torch.int64, torch.int32)


def has_number(index: Any, varies: Callable[[Tensor], bool]) -> bool:
    """Whether there is such an index among whole numbers and slices, and its value can differ from run to run."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(is_number(part) or part is Ellipsis or type(part) in (int, slice) for part in parts):
        return False
    return any(is_number(part) and varies(part) for part in parts)


def entries(values: Tensor, index: Any) -> Tensor:
    """``values[index]`` for an index that ``has_number``, as a copy."""
    parts, dim = index if isinstance(index, tuple) else (index,), 0
    for i, part in enumerate(parts):
        if is_number(part):
            place = torch.where(part < 0, part + values.shape[dim], part)
            values = values.index_select(dim, place.reshape(1)).squeeze(dim)
        elif isinstance(part, slice):
            values = values[(slice(None),) * dim + (part,)]
            dim += 1
        elif part is Ellipsis:
            dim = values.ndim - len(parts[i + 1 :])
        else:
            values = values.select(dim, part)
    return values

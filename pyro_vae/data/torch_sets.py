"""Data sets and loaders of torch, row by row, in their own order: ``TensorDataset``, ``Subset``, those of torchvision.

A row is x, a pair (x, y), or a mapping with an image and perhaps a label; x is an array, a tensor or a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from pyro_vae.errors import InputError

X_KEYS, Y_KEYS = ("x", "image", "img", "pixel_values", "data"), ("y", "label", "labels", "target", "class")


def read_torch_set(data: Any, name: str) -> tuple[Any, Any, tuple[str, ...]]:
    """The rows of a data set or loader, their labels or None, and the classes' names where the set has them.

    A loader that shuffles gives the rows of its data set in their order; one that draws some of them, those it draws.

    Raises:
        InputError: if a row is of another form, or there is none.
    """
    class_names = _class_names(data)
    if isinstance(data, DataLoader):
        whole = isinstance(data.sampler, SequentialSampler | RandomSampler) and not isinstance(
            data.dataset, IterableDataset
        )
        if not whole:
            x, y = _parts(data, name)
            return _joined(x), None if y is None else _joined(y), class_names
        data = data.dataset
    if isinstance(data, TensorDataset) and len(data.tensors) <= 2:
        return data.tensors[0], data.tensors[1] if len(data.tensors) == 2 else None, class_names
    rows = (
        data
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__")
        else (data[row] for row in range(len(data)))
    )
    x, y = _parts(rows, name)
    return x, None if y is None else [_plain(label) for label in y], class_names


def _parts(rows: Iterable[Any], name: str) -> tuple[list[Any], list[Any] | None]:
    pairs = [_pair(row, name) for row in rows]
    if not pairs:
        raise InputError(f"rows in {name}", "none", "give a data set with rows")
    x, y = ([pair[place] for pair in pairs] for place in (0, 1))
    return [_array(each) for each in x], None if y[0] is None else y


def _pair(row: Any, name: str) -> tuple[Any, Any]:
    if isinstance(row, Mapping):
        keys = [[key for key in wanted if key in row] for wanted in (X_KEYS, Y_KEYS)]
        if not keys[0]:
            raise InputError(
                f"an image in each row of {name}, under x or image", f"{', '.join(map(str, row))}", "rename it"
            )
        return row[keys[0][0]], row[keys[1][0]] if keys[1] else None
    if not isinstance(row, list | tuple):
        return row, None
    if not 1 <= len(row) <= 2:
        raise InputError(
            f"x or (x, y) in each row of {name}", f"{len(row)} parts", "keep the first two in a set of your own"
        )
    return row[0], row[1] if len(row) == 2 else None


def _array(x: Any) -> Any:
    return x if isinstance(x, Tensor) else np.asarray(x)


def _plain(label: Any) -> Any:
    is_array = isinstance(label, Tensor | np.ndarray | np.generic)
    return label.tolist() if is_array and np.ndim(label) == 0 else label


def _joined(batches: list[Any]) -> Any:
    if isinstance(batches[0], Tensor):
        return torch.cat(list(batches))
    return np.concatenate([np.asarray(batch) for batch in batches])


def _class_names(data: Any) -> tuple[str, ...]:
    """What a set of torchvision calls its classes, looked for below loaders, subsets and unions."""
    while isinstance(data, DataLoader | Subset | ConcatDataset):
        data = data.datasets[0] if isinstance(data, ConcatDataset) else data.dataset
    names = getattr(data, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

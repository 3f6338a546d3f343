"""Data sets from arrays: checked once, cut by a permutation that never changes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_vae.data.images import Dataset, Images, PixelKind
from pyro_vae.errors import InputError

Array = NDArray[np.generic]
MIN_ROWS = 10


def split_at_random(
    name: str,
    images: Images,
    validation: int,
    test: int,
    class_names: tuple[str, ...] = (),
    kind: PixelKind = "numbers",
) -> Dataset:
    """Cut one array into train, validation and test rows by a permutation that never changes.

    Args:
        name: the data set's name.
        images: all the rows.
        validation: how many rows to validate on.
        test: how many rows to test on.
        class_names: the classes.
        kind: what the pixels are, as ``Dataset`` has it.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train = len(images) - validation - test
    return Dataset(
        name,
        images[order[:train]],
        images[order[train : train + validation]],
        images[order[train + validation :]],
        class_names,
        f"{train} train, {validation} validation and {test} test rows of one fixed permutation",
        kind,
    )


def from_arrays(x: Array, y: Array | None = None, name: str = "arrays") -> Dataset:
    r"""A data set from images and, if there are any, their labels.

    uint8 pixels are divided by 255, unless all are 0 or 1; any other number is taken as it is.  A tenth of the rows
    validates, a tenth tests.

    Args:
        x: images of shape (N, D), (N, H, W) or (N, C, H, W), an array or what NumPy makes one of, such as a tensor.
        y: one whole number or string per row; the classes are its sorted values.
        name: what to call it in messages and in the run's configuration.

    Raises:
        InputError: if shapes or types are not as described, or x is not finite.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.data import from_arrays
        >>> x = np.arange(20 * 64, dtype=np.float32).reshape(20, 8, 8)
        >>> data = from_arrays(x, np.array(["cat", "dog"] * 10))
        >>> data.event_shape, data.class_names
        ((1, 8, 8), ('cat', 'dog'))
        >>> len(data.train), len(data.validation), len(data.test)
        (16, 2, 2)
    """
    x, y = np.asarray(x), None if y is None else np.asarray(y)
    if x.ndim not in (2, 3, 4) or x.shape[0] < MIN_ROWS or 0 in x.shape:
        raise InputError(
            f"x of shape (N, D), (N, H, W) or (N, C, H, W) with at least {MIN_ROWS} rows in {name}",
            f"shape {x.shape}",
            "save the images as one array, row by row",
        )
    if x.dtype.kind not in "buif":
        raise InputError(f"numbers in x of {name}", f"dtype {x.dtype}", "save x as uint8 or float32")
    if not np.isfinite(x).all():
        raise InputError(
            f"finite numbers in x of {name}",
            f"{int((~np.isfinite(x)).sum())} that are NaN or infinite",
            "drop or fill those rows",
        )
    if x.ndim == 3:
        x = x[:, None]
    is_byte = x.dtype == np.uint8
    pixels = torch.from_numpy(np.ascontiguousarray(x if is_byte else x.astype(np.float32)))
    scale = 255.0 if is_byte else 1.0
    labels, class_names = (None, ()) if y is None else _classes(y, len(x), name)
    tenth = max(1, len(x) // 10)
    is_binary = not (pixels.to(torch.bool) != pixels).any()
    scale = 1.0 if is_binary else scale
    kind: PixelKind = "binary" if is_binary else "numbers"
    return split_at_random(name, Images(pixels, labels, scale), tenth, tenth, class_names, kind)


def _classes(y: Array, num_rows: int, name: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    if y.shape != (num_rows,) or y.dtype.kind not in "buiUS":
        raise InputError(
            f"one whole number or string per row in y of {name}, shape ({num_rows},)",
            f"shape {y.shape}, dtype {y.dtype}",
            "save one class label for each row of x, or leave y out",
        )
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"at least two classes in y of {name}", str(len(classes)), "leave y out, or label more classes"
        )
    names = tuple(c.decode() if isinstance(c, bytes) else str(c) for c in classes)
    return torch.from_numpy(labels.astype(np.int64)), names

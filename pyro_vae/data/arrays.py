"""Data sets from arrays, and from what holds arrays: checked once, cut by a permutation that never changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.arguments import by_parameter, side_by_side
from pyro_vae.data.classes import read_classes
from pyro_vae.data.columns import describe_columns, with_moments
from pyro_vae.data.containers import Arrays, unpack
from pyro_vae.data.images import Dataset, Images, PixelKind
from pyro_vae.data.pixels import Reading, read_pixels
from pyro_vae.errors import InputError

MIN_ROWS = 10
READ = Reading()


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


def from_arrays(x: Any, y: Any = None, name: str = "arrays", missing: Any = None, reading: Reading = READ) -> Dataset:
    r"""A data set from images and, if there are any, their labels.

    ``data.pixels`` says by which rule numbers become pixels, ``data.classes`` what is a label and what is not.  A
    tenth of the rows validates, a tenth tests.

    Args:
        x: images of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C): an array or tensor of any type, a list, a
            table.  NaN and masked values are missing.
        y: one label per row, or one-hot rows; -1, NaN, None and "" are not labels.
        name: what to call it in messages and in the run's configuration.
        missing: true where a number of x is missing, bool of the shape of x, or None.
        reading: what is not to be found out.

    Raises:
        InputError: if shapes or types are not as described, x can be read in two ways or is infinite, or values are
            missing and ``reading`` does not let them be.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.data import from_arrays
        >>> x = np.arange(20 * 64, dtype=np.float32).reshape(20, 8, 8)
        >>> data = from_arrays(x, np.array(["cat", "dog"] * 10))
        >>> data.event_shape, data.class_names
        ((1, 8, 8), ('cat', 'dog'))
        >>> len(data.train), len(data.validation), len(data.test)
        (16, 2, 2)
        >>> data.reading
        'whole numbers from 0 to 1279, as they are'
    """
    return from_data({"x": x, "y": y, "missing": missing}, name, reading)


def from_data(data: Any, name: str = "arrays", reading: Reading = READ) -> Dataset:
    """A data set from a container of arrays: an array, a pair (x, y), a mapping, a table, a data set of torch.

    Args:
        data: the container; see ``pyro_vae.data.containers``, and ``pyro_vae.data.arguments`` for several arrays.
        name: what to call it.
        reading: what is not to be found out.

    Raises:
        InputError: as ``from_arrays`` does, and if it is nothing that holds arrays.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae.data import from_data
        >>> flowers = pd.DataFrame({"width": torch.rand(20), "length": torch.rand(20), "label": ["iris", "rose"] * 10})
        >>> data = from_data(flowers)
        >>> data.event_shape, data.class_names
        ((2,), ('iris', 'rose'))
    """
    given = by_parameter(data, reading.parameters) if reading.parameters else None
    if given is None:
        return _dataset(unpack(data, name, reading), name, reading)
    x, arguments = side_by_side(given, name)
    return replace(_dataset(Arrays(x), name, reading), arguments=arguments)


def _dataset(arrays: Arrays, name: str, reading: Reading) -> Dataset:
    shape = arrays.x.shape
    fits = 2 <= len(shape) <= 4 if reading.one_channel else len(shape) > 0  # a program of one's own takes any rows
    if not fits or shape[0] < MIN_ROWS or 0 in shape:
        mend = "save the images as one array, row by row"
        if len(shape) == 1 and not fits:
            mend = "use x[:, None] if each row is one number"
        raise InputError(
            f"x of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C) with at least {MIN_ROWS} rows in {name}",
            f"shape {shape}",
            mend,
        )
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    if arrays.y is not None:
        labels, class_names = read_classes(arrays.y, shape[0], name, arrays.class_names)
    _check_has_columns(arrays, name, reading)
    if arrays.columns:
        reading = replace(reading, scale=1.0, pictures=False)
    pixels = read_pixels(arrays.x, arrays.missing, name, reading)
    tenth = max(1, shape[0] // 10)
    images = Images(pixels.values, labels, pixels.scale, missing=pixels.missing)
    cut = split_at_random(name, images, tenth, tenth, class_names, "numbers" if arrays.columns else pixels.kind)
    if not arrays.columns:
        return replace(cut, reading=pixels.said, channels_last=pixels.channels_last)
    columns = reading.known or with_moments(arrays.columns, cut.train.pixels, cut.train.missing, name)
    words = [describe_columns(columns)]
    words += [] if pixels.missing is None else [f"{100 * pixels.missing.double().mean().item():.3g} % missing"]
    return replace(cut, reading=", ".join(words), columns=columns)


def _check_has_columns(arrays: Arrays, name: str, reading: Reading) -> None:
    asked = reading.covariates or reading.columns
    if arrays.columns or not (asked or reading.likelihood == "mixed"):
        if not (arrays.columns and reading.scale not in (None, 1.0)):
            return
        raise InputError(
            f"columns of {name} as they are, each with a likelihood of its own",
            f"--scale {reading.scale:g}",
            "leave out --scale: columns are standardized inside",
        )
    raise InputError(
        f"a table with columns that have names, for {'--covariates' if reading.covariates else 'the likelihood mixed'}",
        f"{name}, an array without",
        "give pandas.DataFrame(x, columns=…), or a .csv or .parquet file",
    )

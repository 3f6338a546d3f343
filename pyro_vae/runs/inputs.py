"""What a run is asked about: images, latent points, classes and counts, read as its data were and checked once.

An array of images may have any form that ``data.containers`` takes.  Whole numbers are pixels as the data had them, and
are divided by what the data were; all other numbers, and truth values, are what the programs see.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.arguments import Argument, named, parameters_in, side_by_side
from pyro_vae.data.containers import as_numbers
from pyro_vae.data.images import Images
from pyro_vae.data.pixels import Array, are_whole
from pyro_vae.data.tables import is_table
from pyro_vae.errors import InputError, nearest
from pyro_vae.option_types import LARGEST_SEED
from pyro_vae.pairs.structure import LatentSite
from pyro_vae.runs.data_facts import DataFacts
from pyro_vae.runs.table_rows import numbers_of

Classes = int | str | Sequence[int | str] | Array | Tensor

ROUNDING = 1e-4
FAR = 10.0  # times the range of the data, beyond which numbers are of another scale
BOUNDED = ("counts", "intensities", "binary")


def read_images(x: Any, facts: DataFacts) -> Tensor:
    r"""Images as the programs see them, shape (N, \*event_shape), NaN where one is missing, on the CPU.

    Args:
        x: the images.
        facts: what the run's data looked like.

    Raises:
        InputError: if they are none, of another shape or range, not finite, or some values are missing and none of the
            run's data was.
    """
    if facts.columns and is_table(x):
        x = numbers_of(x, facts.columns)
    if facts.arguments and isinstance(x, tuple | Mapping):
        x = _columns_of(x, facts.arguments)
    array, masked = as_numbers(x.values() if isinstance(x, Images) else x, "x")
    array, masked = _shaped(array, facts), None if masked is None else _shaped(masked, facts)
    missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    missing = missing if masked is None else missing | masked
    if missing.any() and not facts.has_missing:
        raise InputError(
            "x without missing values, as the run was fitted on",
            f"{int(missing.sum()):,} that are NaN or masked",
            "fill them, or fit with --missing mask on data that have some",
        )
    seen = array[~missing] if missing.any() else array
    if not np.isfinite(seen).all():
        raise InputError(
            "finite numbers in x", f"{int((~np.isfinite(seen)).sum()):,} that are infinite", "drop those rows"
        )
    scale = _scale(seen, facts)
    _check_range(seen, scale, facts)
    values = torch.from_numpy(
        np.array(array, dtype=np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    )
    values = values / scale if scale != 1.0 else values
    return values.masked_fill(torch.from_numpy(missing), torch.nan) if missing.any() else values


def _columns_of(x: Any, arguments: Sequence[Argument]) -> Array:
    """The arguments of a program side by side, as they were in the data."""
    names, given = [each.name for each in arguments], named(x, parameters_in(arguments)) or {}
    if set(given) != set(names):
        got = ", ".join(map(str, x)) if isinstance(x, Mapping) else f"a tuple of {len(x)}"
        raise InputError(f"what the program is called with, ({', '.join(names)})", got, "give all of them")
    columns, found = side_by_side({name: given[name] for name in names}, "x")
    for each, other in zip(arguments, found, strict=True):
        if each.shape != other.shape:
            wanted = "".join(f", {size}" for size in each.shape) or ","
            raise InputError(
                f"{each.name} of shape (N{wanted})", f"rows of shape {other.shape}", "give rows of that shape"
            )
    return columns


def _shaped(array: Array, facts: DataFacts) -> Array:
    """Rows in the run's shape; of one channel and of channels last it is known what they mean."""
    shape = facts.event_shape
    rows = array.shape[1:]
    if len(shape) == 3:
        last = (*shape[1:], shape[0])
        if rows == last and (rows != shape or facts.channels_last):
            array = np.moveaxis(array, -1, 1)
        elif rows == shape[1:] and shape[0] == 1:
            array = array[:, None]
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        mend = f"use x.reshape{(-1, *shape) if shape else '(-1)'}" if _fits(array, shape) else "give rows of that shape"
        if array.shape == shape or array.shape == shape[1:]:
            mend = "use x[None] for one row"
        wanted = f"(N, {', '.join(map(str, shape))})" if shape else "(N,)"
        raise InputError(f"x of shape {wanted}", f"shape {array.shape}", mend)
    if not len(array):
        raise InputError("at least one row of x", f"shape {array.shape}", "leave out the call where there are no rows")
    return array


def _fits(array: Array, shape: Sequence[int]) -> bool:
    return array.ndim > 0 and array.size > 0 and len(array) > 0 and array.size // len(array) == np.prod(shape)


def _scale(seen: Array, facts: DataFacts) -> float:
    """What numbers are divided by: the data's scale where they are pixels as the data had them, else 1."""
    if facts.scale == 1 or seen.dtype.kind == "b" or not seen.size or not are_whole(seen):
        return 1.0
    high = seen.max()
    if high > 1 or high == 0:
        return facts.scale
    if seen.dtype.kind == "f" or facts.kind == "binary":
        return 1.0
    raise InputError(
        f"whole numbers from 0 to {facts.scale:g}, as the run was fitted on, or numbers from 0 to 1",
        "whole numbers of 0 and 1",
        f"use x.astype(float) if 1 is white, or x.astype(float) / {facts.scale:g} if {facts.scale:g} is",
    )


def _check_range(seen: Array, scale: float, facts: DataFacts) -> None:
    if not seen.size or facts.low is None or facts.high is None:
        return
    low, high = float(seen.min()) / scale, float(seen.max()) / scale
    if scale != 1:
        bounds = (min(0.0, facts.low), max(1.0, facts.high))
        fits = bounds[0] <= low and high <= bounds[1]
    elif facts.kind in BOUNDED:
        bounds, fits = (0.0, 1.0), low >= -ROUNDING and high <= 1 + ROUNDING
    else:
        bounds, size = (facts.low, facts.high), max(abs(facts.low), abs(facts.high))
        fits = size == 0 or max(abs(low), abs(high)) <= FAR * size
    if fits:
        return
    mend = f"or whole numbers from 0 to {facts.scale:g}" if facts.scale != 1 else "on the scale of the run's data"
    raise InputError(
        f"x with values from {bounds[0]:g} to {bounds[1]:g}, as the run was fitted on, {mend}",
        f"values from {float(seen.min()):g} to {float(seen.max()):g}",
        "divide or shift x as the run's data were",
    )


def read_points(z: Any, site: LatentSite, name: str) -> Tensor:
    r"""Latent points as a site takes them, shape (N, \*site.shape), on the CPU.

    Raises:
        InputError: if they are none, of another dimension, or outside the support of the site.
    """
    array, _ = as_numbers(z, "z")
    if array.ndim != 2 or array.shape[1] != site.size or not len(array):
        mend = "use z[None] for one point" if array.shape == (site.size,) else "give one row per point"
        raise InputError(f"z of shape (N, {site.size}) for the latent site {name!r}", f"shape {array.shape}", mend)
    points = torch.from_numpy(array.copy()).to(torch.get_default_dtype())
    values = points.reshape(len(points), *site.shape)
    if not (points.isfinite().all() and (site.support is None or site.support.check(values).all())):
        raise InputError(
            f"finite z in the support of the latent site {name!r}, {site.support}",
            f"values from {points.min().item():g} to {points.max().item():g}",
            "choose other points",
        )
    return values


def read_classes(y: Classes, class_names: Sequence[str], num_rows: int) -> list[int]:
    """The classes of some rows as indices: one class of all, or one per row.

    Raises:
        InputError: if there is no such class, or they are not as many as the rows.
    """
    if isinstance(y, str | int | dict) or not hasattr(y, "__len__") or getattr(y, "ndim", 1) == 0:
        return [read_class(y, class_names)] * num_rows
    if len(y) != num_rows:
        raise InputError(f"one class, or one for each of {num_rows}", f"{len(y)} classes", "give as many, or one")
    return [read_class(each, class_names) for each in y]


def read_class(y: Any, class_names: Sequence[str]) -> int:
    """A class by its index or its name, as an index.

    Raises:
        InputError: if there is no such class.
    """
    if isinstance(y, str):
        if y not in class_names:
            raise InputError("a class of this run", repr(y), nearest(y, class_names))
        return list(class_names).index(y)
    index, last = _whole(y), len(class_names) - 1
    if index is None or not 0 <= index <= last:
        raise InputError(f"a class index from 0 to {last}, or a class name", repr(y), f"choose one of: 0 to {last}")
    return index


def read_count(number: Any, what: str, mend: str) -> int:
    """A number of things to make, at least one.

    Args:
        number: the number.
        what: of what, in the singular.
        mend: what to do instead.

    Raises:
        InputError: if it is not a whole number from 1 on.
    """
    count = _whole(number)
    if count is None or count < 1:
        raise InputError(f"at least one {what}", repr(number), mend)
    return count


def read_seed(seed: Any) -> int:
    """A seed.

    Raises:
        InputError: if it is not a whole number.
    """
    number = _whole(seed)
    if number is None or abs(number) > LARGEST_SEED:
        raise InputError(f"a whole number for the seed, of at most {LARGEST_SEED:,}", repr(seed), "use seed=0")
    return number


def _whole(value: Any) -> int | None:
    """A whole number, of whatever type it is; None for anything else."""
    if isinstance(value, Tensor | np.ndarray) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return int(float(value)) if isinstance(value, numbers.Real) and float(value).is_integer() else None

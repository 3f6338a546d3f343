r"""From an array of any numbers to pixels: by one rule, which is said, and which every later array is read by too.

| x holds | becomes |
|---|---|
| truth values, or numbers that are all 0 or 1 | what it is |
| pictures of whole numbers from 0 to 255, the largest 128 or more, integers or floats | divided by 255 |
| pictures of other integers | refused: ``--scale`` says what they are divided by, 1 for nothing |
| anything else: other floats, vectors that are not pictures | what it is |

A picture has the shape (C, H, W), or (D,) where D is a square from 16 on; bytes are pictures of any shape.  For a
program of one's own nothing but bytes is a picture: it is handed rows of the shape that they have, such as (T, D),
where one of the zoo is handed (H, W) with its one channel.  NaN is a missing value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.columns import Column
from pyro_vae.data.images import PixelKind
from pyro_vae.errors import InputError

if TYPE_CHECKING:
    from pyro_vae.data.survey import Survey

Array = NDArray[Any]
LARGEST_BYTE = 255
DARK = 128  # the largest of bytes that are below it may be 16, 100 or 255 in truth
MOST_CHANNELS = 4  # of what is taken for color channels by its size
MOST_LOST = 0.1  # of a column's standard deviation, by rounding
MOST_COUNTED = 255  # of trials
UNKNOWN_CODE = -1  # of a category that is missing


@dataclass(frozen=True)
class Reading:
    """The instructions for reading arrays, where they are not to be found out.

    Args:
        scale: the number that pixels are divided by; None: by the rule.
        channels: where the channels of images of shape (N, C, H, W) or (N, H, W, C) lie.
        label_column: the column of labels in a table, ``auto`` or ``none``.
        missing: whether missing values are refused, or left out of the likelihood.
        pictures: whether anything but bytes is a picture.
        likelihood: the one that is chosen, by its name; ``none`` of programs that choose it themselves.
        columns: the likelihoods that columns of a table are said to have, by their names.
        covariates: the columns of a table that are given, not modelled.
        known: what is known of the columns of a table already.
        one_channel: whether rows of shape (H, W) are given their one channel, whatever they hold.
        memory: the bytes that the rows of a file may take, which is mapped then; None: it is loaded.
        survey: what another process has found in that file, which this one need not look for.
        parameters: the names of what a program has to be called with, if that is more than x.

    Example:
        >>> from pyro_vae.data import Reading, from_arrays
        >>> counts = np.arange(20 * 64).reshape(20, 8, 8) % 17
        >>> from_arrays(counts, reading=Reading(scale=16)).kind
        'counts'
    """

    scale: float | None = None
    channels: Literal["auto", "first", "last"] = "auto"
    label_column: str = "auto"
    missing: Literal["refuse", "mask"] = "refuse"
    pictures: bool = True
    likelihood: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()
    known: tuple[Column, ...] = ()
    one_channel: bool = True
    memory: int | None = None
    survey: Survey | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pixels:
    r"""Pixels as they are stored.

    Args:
        values: shape (N, \*event_shape), uint8 or torch's default dtype; 0 where one is missing.
        missing: which are missing, bool of the same shape; None where none is.
        scale: the value that means 1.
        kind: what they are, as ``Dataset`` has it.
        said: how they were read, in words.
        channels_last: whether the channels were last.
    """

    values: Tensor
    missing: Tensor | None
    scale: float
    kind: PixelKind
    said: str
    channels_last: bool


def are_pixels(event_shape: tuple[int, ...]) -> bool:
    """Whether data of this shape may be pictures: (C, H, W), or (D,) where D is a square from 16 on."""
    if len(event_shape) != 1:
        return len(event_shape) > 1
    return event_shape[0] >= 16 and math.isqrt(event_shape[0]) ** 2 == event_shape[0]


def read_pixels(x: Array, missing: Array | None, name: str, reading: Reading) -> Pixels:
    """Pixels from an array of numbers of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C); of any, if no pictures.

    Args:
        x: the numbers.
        missing: which are missing, bool of the same shape, or None; NaN are missing in any case.
        name: what to call the data.
        reading: what is not to be found out.

    Raises:
        InputError: if they can be read in two ways, are infinite, or some are missing and that is refused.
    """
    last = x.ndim == 4 and _channels_last(x.shape, x.dtype == np.uint8, name, reading)
    if last:
        x, missing = (None if array is None else np.moveaxis(array, -1, 1) for array in (x, missing))  # type: ignore[assignment]
    if x.ndim == 3 and (reading.one_channel or x.dtype == np.uint8 or reading.channels != "auto"):
        x, missing = x[:, None], None if missing is None else missing[:, None]
    missing = _missing(x, missing, name, reading)
    if missing is not None:
        x = np.where(missing, x.dtype.type(0), x)
    seen = x if missing is None else x[~missing]
    if not np.isfinite(seen).all():
        found = f"{int((~np.isfinite(seen)).sum()):,} that are infinite"
        raise InputError(f"finite numbers in x of {name}", found, "drop or fill them; what is missing is NaN")
    whole = are_whole(seen)
    picture = x.dtype == np.uint8 or (reading.pictures and are_pixels(x.shape[1:]))
    scale, said = _scale(seen, whole, picture, name, reading)
    kind = _kind(seen, whole, scale)
    fits_bytes = whole and seen.min() >= 0 and seen.max() <= LARGEST_BYTE
    as_bytes = fits_bytes and (x.dtype == np.uint8 or scale > 1)
    wide = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
    with np.errstate(over="ignore"):
        values = np.array(x, dtype=np.uint8 if as_bytes else wide, order="C")  # a copy, for x may be read-only
    if not as_bytes and not np.isfinite(values).all():
        raise InputError(f"numbers of up to 3e38 in x of {name}", f"{np.abs(x).max():g}", "divide x by a number")
    if x.dtype.itemsize > 4 and not as_bytes and wide is np.float32:
        _check_told_apart(x, values, name)
    words = [said, "channels last" if last else ""]
    words.append("" if missing is None else f"{100 * missing.mean():.3g} % missing")
    return Pixels(
        torch.from_numpy(values),
        None if missing is None else torch.from_numpy(np.ascontiguousarray(missing)),
        scale,
        kind,
        ", ".join(filter(None, words)),
        last,
    )


def _check_told_apart(x: Array, values: Array, name: str) -> None:
    """Refuse numbers whose differences are lost in single precision, such as seconds since 1970."""
    lost = np.abs(values - x).max(0) > MOST_LOST * x.std(0)
    lost &= x.std(0) > 0
    if lost.any():
        raise InputError(
            f"numbers in x of {name} that single precision tells apart",
            f"{int(lost.sum())} columns or pixels whose values differ too little for their size, {np.abs(x).max():g}",
            "subtract their means, or call torch.set_default_dtype(torch.float64) first",
        )


def _channels_last(shape: tuple[int, ...], is_bytes: bool, name: str, reading: Reading) -> bool:
    """Whether images have their channels last: by the one side that is short, or else by the two that are alike."""
    if reading.channels != "auto" or not (reading.pictures or is_bytes):
        return reading.channels == "last"
    _, first, middle, last = shape
    short = (first <= MOST_CHANNELS, last <= MOST_CHANNELS)
    if short[0] != short[1]:
        return short[1]
    square = (middle == last, first == middle)
    if square[0] != square[1]:
        return square[1]
    raise InputError(
        f"images of {name} of shape (N, C, H, W) or (N, H, W, C) that can be told apart",
        f"shape {tuple(shape)}",
        "use --channels first or --channels last",
    )


def _missing(x: Array, missing: Array | None, name: str, reading: Reading) -> Array | None:
    found = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, dtype=bool)
    if reading.likelihood == "categorical":
        found = found | (x == UNKNOWN_CODE)
    if missing is not None:
        found = found | missing
    count = int(found.sum())
    if not count:
        return None
    if reading.missing == "refuse":
        raise InputError(
            f"every value of x of {name}",
            f"{count:,} missing (NaN or masked), {100 * found.mean():.3g} % of them",
            "use --missing mask to leave them out of the likelihood, or fill them",
        )
    if found.all():
        raise InputError(f"values in x of {name}", "none: all are missing", "give the values that there are")
    return found


def _scale(seen: Array, whole: bool, picture: bool, name: str, reading: Reading) -> tuple[float, str]:
    """What pixels are divided by, and how that is said."""
    low, high = float(seen.min()), float(seen.max())
    binary = not ((seen != 0) & (seen != 1)).any()
    numbers = f"{'whole numbers' if whole else 'numbers'} from {low:g} to {high:g}"
    if reading.scale is not None:
        scale = float(reading.scale)
        return scale, f"{numbers}, as they are" if scale == 1 else f"{numbers}, divided by {scale:g}"
    if binary:
        return 1.0, "pixels that are 0 or 1"
    like_bytes = whole and picture and low >= 0 and DARK <= high <= LARGEST_BYTE
    if not like_bytes and (seen.dtype.kind == "f" or not picture):
        return 1.0, f"{numbers}, as they are"
    if like_bytes:
        return float(LARGEST_BYTE), f"{numbers}, divided by {LARGEST_BYTE}"
    likely = LARGEST_BYTE if high <= LARGEST_BYTE else 65535
    choice = f"--scale {high:g} or --scale {likely}, whichever is white, or " if low >= 0 else ""
    raise InputError(
        f"integers in x of {name} that are 0 or 1, or from 0 to 255 and not all below {DARK}, without --scale",
        f"numbers from {low:g} to {high:g}",
        f"use {choice}--scale 1 to take them as they are, beside --standardize for any size",
    )


def are_whole(values: Array) -> bool:
    """Whether all values are whole numbers, however they are stored."""
    return values.dtype.kind in "bui" or bool((values == np.rint(values)).all())


def _kind(seen: Array, whole: bool, scale: float) -> PixelKind:
    if not ((seen != 0) & (seen != scale)).any():
        return "binary"
    is_count = whole and scale not in (1.0, 255.0) and scale == int(scale) <= MOST_COUNTED
    return "counts" if is_count and seen.min() >= 0 and seen.max() <= scale else "numbers"

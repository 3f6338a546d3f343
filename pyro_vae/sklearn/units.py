r"""Between the units of a user's numbers and those that the programs see.

Where nothing else is asked for, numbers that are not all 0 or 1 are centred, each column at its mean, and divided by
one number s, the root mean square of what is left.  One number for all columns changes neither their shares of the
variance nor what a normal likelihood with one scale can say, as in principal component analysis; it only brings them
to the size that networks start from.  A density in the user's units follows from x = m + s x':

    log p(x) = log p'(x') - D log s,

D being the number of columns that are not missing.  The probability of bits or counts has no units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.images import Dataset, Images
from pyro_vae.data.pixels import Array, Reading, read_pixels

VALIDATION_SHARE, FEWEST_ROWS = 10, 10  # a tenth validates, where there are ten rows or more
NAME = "X"


@dataclass(frozen=True)
class Units:
    """How numbers of a user become those that the programs see: x' = (x - location) / scale.

    Args:
        location: shape (D,), or 0.
        scale: one number for all columns.
        event_shape: the shape of a datum for the programs.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.sklearn.units import Units
        >>> x = np.array([[10.0, 0.0], [14.0, 0.0]])
        >>> units = Units.standardizing(x, (2,))
        >>> units.rows(x)
        tensor([[-1.4142,  0.0000],
                [ 1.4142,  0.0000]])
        >>> units.numbers(units.rows(x)).round(4)
        array([[10.,  0.],
               [14.,  0.]])
    """

    location: NDArray[np.float64] | float
    scale: float
    event_shape: tuple[int, ...]

    @classmethod
    def standardizing(cls, x: Array, event_shape: tuple[int, ...]) -> Units:
        """The units in which the columns of x, shape (N, D), have mean 0 and together the mean square 1."""
        wide = x.astype(np.float64)
        seen = ~np.isnan(wide)
        count = np.maximum(1, seen.sum(0))
        location = np.where(seen, wide, 0.0).sum(0) / count
        left = np.where(seen, wide - location, 0.0)
        size = np.abs(left).max()  # first divided by, so that squares neither overflow nor vanish
        scale = size * np.sqrt(np.square(left / size).sum() / max(1, seen.sum())) if size > 0 else 1.0
        return cls(location, float(scale), event_shape)

    def rows(self, x: Array) -> Tensor:
        r"""Numbers of a user, shape (N, D), as the programs see them, shape (N, \*event_shape)."""
        wide = torch.get_default_dtype() == torch.float64
        with np.errstate(over="ignore"):
            values = ((x.astype(np.float64) - self.location) / self.scale).astype(np.float64 if wide else np.float32)
        return torch.from_numpy(values).reshape(-1, *self.event_shape)

    def numbers(self, rows: Tensor) -> NDArray[np.float64]:
        """What the programs made, in the user's units, shape (N, D), the reverse of ``rows``."""
        values: NDArray[np.float64] = rows.double().cpu().flatten(1).numpy()
        return values * self.scale + self.location

    def log_volume(self, x: Array) -> NDArray[np.float64]:
        """What is added to a log-density of rows x of the programs for one in the user's units, shape (N,), nats."""
        seen: NDArray[np.float64] = (~np.isnan(x)).sum(1).astype(np.float64)
        return -seen * np.log(self.scale)


def read_rows(
    x: Array, event_shape: tuple[int, ...], reading: Reading, standardize: bool, labels: Labels | None, seed: int
) -> tuple[Dataset, Units]:
    """Rows as a data set to fit to, and their units.

    Args:
        x: numbers of shape (N, D).
        event_shape: the shape of a datum for the programs, of D numbers in all.
        reading: what they are divided by, and whether some may be missing, as ``pyro_vae.data`` has it.
        standardize: whether numbers that are not all 0 or 1 are centred and scaled.
        labels: what is known of their classes, if there are any.
        seed: draws the rows that validate.

    Raises:
        InputError: if some are missing and that is refused.
    """
    units = Units(0.0, 1.0, event_shape)
    is_binary = bool((np.isnan(x) | (x == 0) | (x == 1)).all())
    if standardize and not is_binary:
        units = Units.standardizing(x, event_shape)
        x, reading = (x - units.location) / units.scale, replace(reading, scale=1.0)
    shaped = x.reshape(-1, *event_shape)
    pixels = read_pixels(shaped, None, NAME, reading)
    if pixels.scale != 1:
        units = Units(units.location, units.scale * pixels.scale, event_shape)
    indices = None if labels is None else torch.from_numpy(labels.indices)
    images = Images(pixels.values.reshape(-1, *event_shape), indices, pixels.scale, missing=pixels.missing)
    train, validation = split(len(x), labels, seed)
    held = f"{len(train)} rows to fit to and {len(validation)} to choose the best epoch by"
    said = f"{held}{', the same' if len(train) == len(x) else ''}; none to test on"
    rows = images[validation]
    names = () if labels is None else labels.names
    return Dataset(NAME, images[train], rows, rows, names, said, pixels.kind, pixels.said), units


@dataclass(frozen=True)
class Labels:
    """What is known of the classes of rows.

    Args:
        indices: shape (N,), int64, -1 where a row has no label.
        names: the classes, as text.
    """

    indices: NDArray[Any]
    names: tuple[str, ...]


def split(num_rows: int, labels: Labels | None, seed: int) -> tuple[Tensor, Tensor]:
    """The rows that train and those that validate, drawn by seed.

    A label is not spent on validation where rows have none, and no class loses its last one.  Fewer than ten rows, and
    rows that are all needed, do both.
    """
    everything = torch.arange(num_rows)
    order, spare = np.random.default_rng(seed).permutation(num_rows), num_rows
    if labels is not None:
        drawn = labels.indices[order]
        first = np.zeros(num_rows, bool)
        first[np.unique(drawn, return_index=True)[1]] = True
        needed = first & (drawn >= 0)
        order, spare = order[np.argsort((drawn >= 0).astype(int) + needed, kind="stable")], int((~needed).sum())
    number = min(num_rows // VALIDATION_SHARE, spare)
    if num_rows < FEWEST_ROWS or not number:
        return everything, everything
    held = torch.zeros(num_rows, dtype=torch.bool)
    held[torch.from_numpy(order[:number].copy())] = True
    return everything[~held], everything[held]

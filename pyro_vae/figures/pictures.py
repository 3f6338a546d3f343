"""Images as pictures: which data can be drawn, arrays of pixels side by side, files written whole.

No matplotlib here: a training that keeps frames need not wait for its import.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from pyro_vae.errors import InputError


def is_picture(event_shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be drawn: (C, H, W) with C 1 or 3, or (D,) where D is a square from 16 on."""
    if len(event_shape) == 1:
        return event_shape[0] >= 16 and math.isqrt(event_shape[0]) ** 2 == event_shape[0]
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


MISSING = 0.5  # the gray of a pixel that is not there
ARRAYS = "use the arrays of run.sample and run.reconstruct"


def check_pictures(event_shape: tuple[int, ...], mend: str = ARRAYS) -> None:
    """Refuse data that cannot be drawn.

    Args:
        event_shape: the shape of one datum.
        mend: what to do instead.

    Raises:
        InputError: if they are not pictures.
    """
    if not is_picture(event_shape):
        raise InputError(
            "images of shape (C, H, W) with 1 or 3 channels, or (D,) where D is a square from 16 on",
            f"shape {event_shape}",
            mend,
        )


def as_arrays(images: Tensor) -> np.ndarray:
    """Images of shape (N, H, W) or (N, H, W, 3) between 0 and 1; what is missing is gray.

    Raises:
        InputError: if they are not pictures.
    """
    array = images.detach().float().cpu().clamp(0, 1).nan_to_num(MISSING).numpy()
    check_pictures(array.shape[1:])
    if array.ndim == 2:
        side = math.isqrt(array.shape[1])
        return array.reshape(-1, side, side)
    return array[:, 0] if array.shape[1] == 1 else np.moveaxis(array, 1, -1)


def mosaic(tiles: np.ndarray, columns: int, gap: int | None = None) -> np.ndarray:
    """Pictures of shape (N, H, W) or (N, H, W, 3) side by side on white.

    Args:
        tiles: the pictures.
        columns: how many per row.
        gap: the pixels between them; default: a fourteenth of their height.
    """
    count, height, width = tiles.shape[:3]
    rows, pad = math.ceil(count / columns), max(1, height // 14) if gap is None else gap
    canvas = np.ones((rows * (height + pad) + pad, columns * (width + pad) + pad, *tiles.shape[3:]))
    for i, tile in enumerate(tiles):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        canvas[top : top + height, left : left + width] = tile
    return canvas

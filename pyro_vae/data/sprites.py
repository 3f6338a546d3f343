"""Small black-and-white shapes of which every factor is known: for measuring disentanglement.

One image for each combination of the factors, in the manner of dSprites (Matthey, Higgins, Hassabis and Lerchner,
2017), smaller: a point (u, v) of a shape's own plane is inside where

    square:   max(|u|, |v|) <= 0.8,
    ellipse:  (u / 1.2)^2 + (v / 0.65)^2 <= 1,
    heart:    (u^2 + v^2 - 1)^3 <= u^2 v^3,

and a pixel is 1 where its centre, moved, turned back and divided by the size, is.  The rotation stays below a quarter
of a turn, after which a square looks as before.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from pyro_vae.data.arrays import split_at_random
from pyro_vae.data.base import DATA
from pyro_vae.data.images import Dataset, Images
from pyro_vae.shapes import Int, Shaped

SIDE = 32
SHAPES = ("square", "ellipse", "heart")
SIZES = (3.0, 4.0, 5.0, 6.0)  # pixels
ROTATIONS = tuple(math.pi / 12 * step for step in range(6))  # from 0 to 75 degrees
PLACES = tuple(torch.linspace(8, 24, 10).tolist())  # pixels from the edge
SPRITE_FACTORS = {"shape": len(SHAPES), "size": len(SIZES), "rotation": len(ROTATIONS), "across": 10, "down": 10}


@DATA.register("sprites")
def sprites() -> Dataset:
    """Squares, ellipses and hearts, 32x32, of four sizes, six rotations and 100 places, 7,200 images; drawn here."""
    images, factors = draw_sprites()
    rows = Images(images, factors[:, 0])
    return split_at_random("sprites", rows, validation=600, test=600, class_names=SHAPES, kind="binary")


def draw_sprites() -> tuple[Shaped[Tensor, "7200 1 32 32"], Int[Tensor, "7200 5"]]:
    """All the sprites, and the factors that made each of them.

    Returns:
        images of 0 and 1, uint8, shape (7200, 1, 32, 32), and the index of the value of each factor, int64, shape
        (7200, 5): shape, size, rotation, across and down, the last running fastest.

    Example:
        >>> from pyro_vae.data import draw_sprites
        >>> images, factors = draw_sprites()
        >>> images.shape, factors[1].tolist()
        (torch.Size([7200, 1, 32, 32]), [0, 0, 0, 0, 1])
    """
    centres = torch.arange(SIDE) + 0.5
    places = torch.tensor(PLACES)
    u = (centres - places[:, None])[:, None, None, :]  # (across, 1, 1, columns)
    v = (places[:, None] - centres)[None, :, :, None]  # (1, down, rows, 1), upwards
    images = []
    for shape, size, angle in product(SHAPES, SIZES, ROTATIONS):
        turned = (u * math.cos(angle) + v * math.sin(angle)) / size, (v * math.cos(angle) - u * math.sin(angle)) / size
        images.append(_inside(shape, *turned).flatten(0, 1))
    values = [torch.arange(number) for number in SPRITE_FACTORS.values()]
    return torch.cat(images).to(torch.uint8).unsqueeze(1), torch.cartesian_prod(*values)


def _inside(shape: str, u: Tensor, v: Tensor) -> Tensor:
    if shape == "square":
        return torch.maximum(u.abs(), v.abs()) <= 0.8
    if shape == "ellipse":
        return (u / 1.2) ** 2 + (v / 0.65) ** 2 <= 1
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3

r"""Small random changes of an image that leave its class alone.

Each image is turned, sheared, scaled and moved by an affine map of its own, u -> A u + t in coordinates from -1 to 1,
resampled bilinearly; what comes in from outside is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROTATION = 25.0  # degrees, either way
SHEAR = 0.3
SCALE = 0.2  # relative
SHIFT = 0.1  # of the side


def random_affine_of_seen(x: Tensor) -> Tensor:
    """Change images of which some pixels are missing, NaN, as ``random_affine`` does.

    A pixel is the mean of those around it that are there, by their weights; it is missing where less than half of the
    weight is there.

    Args:
        x: images of shape (N, C, H, W).

    Example:
        >>> from pyro_vae.data import random_affine_of_seen
        >>> x = torch.full((5, 1, 8, 8), 0.5)
        >>> x[..., :3] = torch.nan
        >>> changed = random_affine_of_seen(x)
        >>> 0 < changed.isnan().double().mean() < 0.6
        tensor(True)
    """
    missing = x.isnan()
    values, holes = random_affine(torch.cat([torch.where(missing, 0.0, x), missing.to(x.dtype)], 1)).chunk(2, 1)
    return torch.where(holes < 0.5, values / (1 - holes).clamp(min=0.5), torch.nan)


def random_affine(x: Tensor) -> Tensor:
    """Turn, shear, scale and move every image at random.

    Args:
        x: images of shape (N, C, H, W).

    Example:
        >>> from pyro_vae.data import load_data, random_affine
        >>> x = load_data("digits").test.values()[:5]
        >>> changed = random_affine(x)
        >>> changed.shape, torch.equal(changed, x)
        (torch.Size([5, 1, 8, 8]), False)
    """
    turn, shear, scale, right, down = (2 * torch.rand(5, len(x), device=x.device, dtype=x.dtype) - 1).unbind()
    turn, scale = turn * math.radians(ROTATION), 1 + scale * SCALE
    cos, sin = turn.cos() * scale, turn.sin() * scale
    rows = (
        torch.stack([cos, shear * SHEAR * scale - sin, 2 * SHIFT * right], -1),
        torch.stack([sin, cos, 2 * SHIFT * down], -1),
    )
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, align_corners=False)

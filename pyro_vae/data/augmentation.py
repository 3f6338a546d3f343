r"""Small random changes of an image that leave its class alone.

An affine map turns, shears, scales and moves each image by itself, u -> A u + t in coordinates from -1 to 1; it is
resampled bilinearly, and what comes in from outside is 0.  A new kind of change registers itself and is called with
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.option_types import NotNegative, Share
from pyro_vae.registry import Registry

Augment = Callable[[Tensor], Tensor]

AUGMENTATIONS: Registry[Augment] = Registry("augmentation")


@AUGMENTATIONS.register("none")
class Unchanged:
    """Images as they are."""

    def __call__(self, x: Tensor) -> Tensor:
        """The images themselves."""
        return x


@AUGMENTATIONS.register("affine")
class Affine:
    """Every image turned, sheared, scaled and moved at random.

    Args:
        rotation: at most so many degrees, either way.
        shear: at most this.
        scale: at most so much larger or smaller, relative.
        shift: at most this part of a side, either way.

    Example:
        >>> from pyro_vae.data import AUGMENTATIONS, load_data
        >>> x = load_data("digits").test.values()[:5]
        >>> changed = AUGMENTATIONS.build("affine:rotation=15")(x)
        >>> changed.shape, torch.equal(changed, x)
        (torch.Size([5, 1, 8, 8]), False)
    """

    def __init__(
        self, rotation: NotNegative = 25.0, shear: NotNegative = 0.3, scale: Share = 0.2, shift: NotNegative = 0.1
    ) -> None:
        self.rotation, self.shear, self.scale, self.shift = rotation, shear, scale, shift

    def __call__(self, x: Tensor) -> Tensor:
        """Change images of shape (N, C, H, W)."""
        turn, shear, scale, right, down = (2 * torch.rand(5, len(x), device=x.device, dtype=x.dtype) - 1).unbind()
        turn, scale = turn * math.radians(self.rotation), 1 + scale * self.scale
        cos, sin = turn.cos() * scale, turn.sin() * scale
        rows = (
            torch.stack([cos, shear * self.shear * scale - sin, 2 * self.shift * right], -1),
            torch.stack([sin, cos, 2 * self.shift * down], -1),
        )
        grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return torch.nn.functional.grid_sample(x, grid, align_corners=False)


class OfSeen:
    """A change of images of which some pixels are missing, NaN.

    A pixel is the mean of those around it that are there, by their weights; it is missing where less than half of the
    weight is there.

    Args:
        augment: the change of whole images.

    Example:
        >>> from pyro_vae.data.augmentation import Affine, OfSeen
        >>> x = torch.full((5, 1, 8, 8), 0.5)
        >>> x[..., :3] = torch.nan
        >>> changed = OfSeen(Affine())(x)
        >>> 0 < changed.isnan().double().mean() < 0.6
        tensor(True)
    """

    def __init__(self, augment: Augment) -> None:
        self.augment = augment

    def __call__(self, x: Tensor) -> Tensor:
        """Change images of shape (N, C, H, W)."""
        missing = x.isnan()
        values, holes = self.augment(torch.cat([torch.where(missing, 0.0, x), missing.to(x.dtype)], 1)).chunk(2, 1)
        return torch.where(holes < 0.5, values / (1 - holes).clamp(min=0.5), torch.nan)

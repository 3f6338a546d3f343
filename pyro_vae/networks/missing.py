"""How an encoder sees missing values: zero in their place, and beside the values an indicator of where that is so."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.networks.base import Shape


def with_indicator(x: Tensor, event_dim: int) -> Tensor:
    r"""Values and the indicator of the missing ones, side by side along the first dimension of an event.

    Args:
        x: values of shape (N, C, H, W) or (N, D), NaN where one is missing.
        event_dim: the number of dimensions of one datum.

    Returns:
        Shape (N, 2 C, H, W) or (N, 2 D), without NaN.

    Example:
        >>> from pyro_vae.networks import with_indicator
        >>> with_indicator(torch.tensor([[0.5, torch.nan]]), event_dim=1)
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """
    missing = x.isnan()
    return torch.cat([torch.where(missing, 0.0, x), missing.to(x.dtype)], -event_dim)


def indicator_shape(event_shape: Shape) -> Shape:
    """The event shape of what ``with_indicator`` gives.

    Example:
        >>> from pyro_vae.networks import indicator_shape
        >>> indicator_shape((1, 8, 8)), indicator_shape((5,))
        ((2, 8, 8), (10,))
    """
    return (2 * event_shape[0], *event_shape[1:])

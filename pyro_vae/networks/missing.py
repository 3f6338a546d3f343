"""How an encoder sees missing values: zero in their place, and beside the values an indicator of where that is so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.networks.base import Shape


def with_indicator(x: Tensor, event_dim: int, seen: Tensor | None = None) -> Tensor:
    r"""Values and the indicator of the missing ones, side by side along the first dimension of an event.

    Args:
        x: values of shape (N, C, H, W) or (N, D), NaN where one is missing.
        event_dim: the number of dimensions of one datum.
        seen: what is seen of the values, which may be more numbers than they are; default: the values.

    Returns:
        Shape (N, 2 C, H, W) or (N, 2 D), more where more is seen, without NaN.

    Example:
        >>> from pyro_vae.networks import with_indicator
        >>> with_indicator(torch.tensor([[0.5, torch.nan]]), event_dim=1)
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """
    missing = x.isnan()
    values = torch.where(missing, 0.0, x) if seen is None else seen.nan_to_num(0.0)
    return torch.cat([values, missing.to(x.dtype)], -event_dim)


def indicator_shape(event_shape: Shape, seen_shape: Shape | None = None) -> Shape:
    """The event shape of what ``with_indicator`` gives.

    Args:
        event_shape: of the values.
        seen_shape: of what is seen of them; default: the same.

    Example:
        >>> from pyro_vae.networks import indicator_shape
        >>> indicator_shape((1, 8, 8)), indicator_shape((5,))
        ((2, 8, 8), (10,))
    """
    return (event_shape[0] + (seen_shape or event_shape)[0], *event_shape[1:])


class BesideIndicator(nn.Module):
    """The view of values through a module, with the indicator of the missing ones beside it.

    Args:
        view: the module.
        event_dim: the number of dimensions of one datum.

    Example:
        >>> from pyro_vae.networks import BesideIndicator
        >>> BesideIndicator(torch.nn.Identity(), event_dim=1)(torch.tensor([[0.5, torch.nan]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """

    def __init__(self, view: nn.Module, event_dim: int) -> None:
        super().__init__()
        self.view, self.event_dim = view, event_dim

    def forward(self, x: Tensor) -> Tensor:
        return with_indicator(x, self.event_dim, self.view(x))

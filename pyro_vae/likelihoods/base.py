r"""What every likelihood has in common: a module whose ``forward(params)`` returns p(x | z).

``params`` is what the decoder puts out, of shape (..., \*params_shape), one number for each of x unless a likelihood
says otherwise; every dimension of an image is an event dimension, so log-probabilities are nats per image.  Which
values x may take is the support of the distribution.

With values missing, ``seen_pixels.leave_out_missing`` makes a likelihood one of the values that are there.
"""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.registry import Registry


class Likelihood(nn.Module):
    """Base of the likelihoods.

    A new one subclasses this, registers itself and writes ``forward(params)``, declaring ``self.event_dim`` event
    dimensions.

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.likelihoods import Likelihood
        >>> class Cauchy(Likelihood):
        ...     def forward(self, params):
        ...         return dist.Cauchy(params, 1.0).to_event(self.event_dim)
        >>> Cauchy((2,))(torch.zeros(3, 2)).log_prob(torch.zeros(3, 2))  # minus twice the logarithm of pi
        tensor([-2.2895, -2.2895, -2.2895])
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape, self.event_dim = tuple(event_shape), len(event_shape)

    @property
    def params_shape(self) -> tuple[int, ...]:
        """The shape of what the decoder puts out for one datum."""
        return self.event_shape

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """The shape of one datum as an encoder sees it."""
        return self.event_shape

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        r"""p(x | z) from decoder outputs of shape (..., \*params_shape)."""
        raise NotImplementedError

    def view(self) -> nn.Module:
        r"""The module, without parameters, through which an encoder sees x: the identity, unless said otherwise.

        It maps x of shape (N, \*event_shape) to shape (N, \*seen_shape); what is missing, NaN, may stay so.
        """
        return nn.Identity()


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood", ("event_shape", "columns"))

r"""What every likelihood has in common: a module whose ``forward(params)`` returns p(x | z).

``params`` is what the decoder puts out, of shape (..., \*event_shape); every dimension of an image is an event
dimension, so log-probabilities are nats per image.  Which values x may take is the support of the distribution.

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
        self.event_dim = len(event_shape)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        r"""p(x | z) from decoder outputs of shape (..., \*event_shape)."""
        raise NotImplementedError

    @staticmethod
    def seen(x: Tensor) -> Tensor:
        """What an encoder sees of x: x itself, unless it is spread over orders of magnitude."""
        return x


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood", ("event_shape",))

r"""The likelihood of categories: codes 0, 1, …, K - 1 without an order, such as those of colors or of countries.

The decoder puts out K logits for each entry of x, log p(x) = eta_x - log sum_k exp(eta_k), and an encoder sees
indicators: K numbers for each entry, the one of its code 1 and the others 0.  A missing entry has no indicator.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.columns import MOST_CATEGORIES
from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood


class Codes(dist.TorchDistribution):
    """A category, its code as a float; its ``mean`` is the most probable code, for codes have no average.

    Args:
        logits: of shape ``(*batch_shape, K)``.

    Example:
        >>> from pyro_vae.likelihoods import Codes
        >>> p = Codes(torch.tensor([0.0, 2.0, 1.0]).log())
        >>> p.log_prob(torch.tensor([1.0, 2.0])).exp(), p.mean
        (tensor([0.6667, 0.3333]), tensor(1.))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.logits.shape[-1] - 1)

    @property
    def mean(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Codes:
        return Codes(self.logits.expand(*batch_shape, self.logits.shape[-1]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        codes: Tensor = dist.Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
        return codes.to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_probs = self.logits.log_softmax(-1)
        codes = value.long().unsqueeze(-1)
        shape = torch.broadcast_shapes(codes.shape[:-1], log_probs.shape[:-1])
        return log_probs.expand(*shape, -1).gather(-1, codes.expand(*shape, 1)).squeeze(-1)


class _Indicators(nn.Module):
    """Indicators of K codes beside each other along the first dimension of an event; of NaN and of -1 all are 0."""

    def __init__(self, values: int, event_dim: int) -> None:
        super().__init__()
        self.values, self.event_dim = values, event_dim

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.arange(self.values, dtype=x.dtype, device=x.device).view(-1, *[1] * (self.event_dim - 1))
        indicators = (x.unsqueeze(-self.event_dim) == codes).to(x.dtype)
        return indicators.flatten(-self.event_dim - 1, -self.event_dim)


@LIKELIHOODS.register("categorical")
class Categorical(Likelihood):
    """Independent categories of K values each, their codes 0, 1, …, K - 1.

    Args:
        event_shape: the shape of one datum.
        values: the number K, which ``fit`` finds out by the largest code unless it is given.

    Example:
        >>> from pyro_vae.likelihoods import Categorical
        >>> colors = Categorical((2,), values=3)
        >>> colors.params_shape, colors.seen_shape  # three logits, and three indicators, for each of two entries
        ((6,), (6,))
        >>> colors(torch.zeros(6)).log_prob(torch.tensor([0.0, 2.0]))  # minus twice the logarithm of 3
        tensor(-2.1972)
        >>> colors.view()(torch.tensor([[0.0, 2.0]]))
        tensor([[1., 0., 0., 0., 0., 1.]])
    """

    def __init__(
        self, event_shape: tuple[int, ...], values: Annotated[int, Field(ge=2, le=MOST_CATEGORIES)] = 2
    ) -> None:
        super().__init__(event_shape)
        self.values = values

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.values * self.event_shape[0], *self.event_shape[1:])

    @property
    def seen_shape(self) -> tuple[int, ...]:
        return self.params_shape

    def view(self) -> nn.Module:
        return _Indicators(self.values, self.event_dim)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        logits = params.unflatten(-self.event_dim, (self.event_shape[0], self.values))
        return dist.Independent(Codes(logits.movedim(-self.event_dim, -1)), self.event_dim)

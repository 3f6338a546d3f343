"""Likelihoods of pixels from 0 to 1: bits, shares of a number of trials, and a density between them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood
from pyro_vae.option_types import Whole

ROUNDING = 1e-3  # of a count that was divided and multiplied again


class Shares(constraints.Constraint):
    """Shares of a number of trials: 0, 1/n, 2/n, …, 1.

    Args:
        trials: the number n.

    Example:
        >>> from pyro_vae.likelihoods import Shares
        >>> Shares(4)
        multiples of 1/4 in [0, 1]
        >>> Shares(4).check(torch.tensor([0.25, 0.3, 1.0, 1.25]))
        tensor([ True, False,  True, False])
    """

    is_discrete = True

    def __init__(self, trials: int) -> None:
        self.trials = trials
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        counts = value * self.trials
        return ((counts - counts.round()).abs() <= ROUNDING) & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return f"multiples of 1/{self.trials} in [0, 1]"


class BinomialShare(dist.TorchDistribution):
    """The share x of n Bernoulli trials that succeed: n x is binomial.

    log p(x) = log C(n, n x) + n (x log l + (1 - x) log (1 - l)), n times the Bernoulli's term and a constant.

    Args:
        trials: the number n.
        logits: log l - log (1 - l), of the batch shape.

    Example:
        >>> from pyro_vae.likelihoods import BinomialShare
        >>> two_fair_coins = BinomialShare(2, torch.tensor(0.0))
        >>> two_fair_coins.log_prob(torch.tensor([0.0, 0.5, 1.0])).exp()
        tensor([0.2500, 0.5000, 0.2500])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}

    def __init__(self, trials: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.trials, self.logits = trials, logits
        super().__init__(logits.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.boolean if self.trials == 1 else Shares(self.trials)

    @property
    def probs(self) -> Tensor:
        """The probability of a success, of the batch shape."""
        return self.logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs) / self.trials

    def expand(self, batch_shape: Any, _instance: Any = None) -> BinomialShare:
        return BinomialShare(self.trials, self.logits.expand(batch_shape), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            counts: Tensor = dist.Binomial(self.trials, logits=self.logits).sample(torch.Size(sample_shape))
            return counts / self.trials

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        terms: Tensor = self.trials * dist.Bernoulli(logits=self.logits, validate_args=False).log_prob(value)
        if self.trials == 1:
            return terms
        successes = value * self.trials
        ways = math.lgamma(self.trials + 1) - (successes + 1).lgamma() - (self.trials - successes + 1).lgamma()
        return terms + ways


@LIKELIHOODS.register("binomial")
class Binomial(Likelihood):
    """Independent binomial pixels, from logits; for gray pixels that are counts, such as those of the digits.

    Args:
        event_shape: the shape of one datum.
        trials: the largest count n; a pixel is the share x = count / n.  With one trial it is the Bernoulli.

    Example:
        >>> from pyro_vae.likelihoods import Binomial
        >>> logits, counts = torch.randn(3, 1, 8, 8), torch.randint(17, (3, 1, 8, 8))
        >>> shares = Binomial((1, 8, 8), trials=16)(logits).log_prob(counts / 16)
        >>> binomial = torch.distributions.Binomial(16, logits=logits).log_prob(counts)
        >>> torch.allclose(shares, binomial.sum((1, 2, 3)))
        True
    """

    def __init__(self, event_shape: tuple[int, ...], trials: Whole = 16) -> None:
        super().__init__(event_shape)
        self.trials = trials

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Independent(BinomialShare(self.trials, params), self.event_dim)


@LIKELIHOODS.register("bernoulli")
class Bernoulli(Likelihood):
    """Independent Bernoulli pixels, from logits; for binarized images.

    Example:
        >>> from pyro_vae.likelihoods import Bernoulli
        >>> p = Bernoulli((1, 8, 8))(torch.zeros(3, 1, 8, 8))
        >>> p.batch_shape, p.event_shape
        (torch.Size([3]), torch.Size([1, 8, 8]))
        >>> round(p.log_prob(torch.ones(3, 1, 8, 8))[0].item(), 2)  # 64 fair coins, nats
        -44.36
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=params).to_event(self.event_dim)


@LIKELIHOODS.register("continuous_bernoulli")
class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli pixels, from logits: a density for gray pixels in [0, 1].

    p(x) = C(l) l^x (1 - l)^{1 - x} with C(l) = 2 artanh(1 - 2 l) / (1 - 2 l), and C(1/2) = 2.  Loaiza-Ganem and
    Cunningham, *The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders*, 2019.

    Example:
        >>> from pyro_vae.likelihoods import ContinuousBernoulli
        >>> likelihood, gray = ContinuousBernoulli((1,)), torch.linspace(0, 1, 1001).unsqueeze(1)
        >>> density = likelihood(torch.full((1001, 1), 2.0)).log_prob(gray).exp()
        >>> round(torch.trapezoid(density, dx=0.001).item(), 3)  # it integrates to one, as the Bernoulli's does not
        1.0
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.ContinuousBernoulli(logits=params).to_event(self.event_dim)

r"""Likelihoods: modules whose ``forward(params)`` returns p(x | z).

``params`` is what the decoder puts out, of shape (..., \*event_shape); every dimension of an image is an event
dimension, so log-probabilities are nats per image.  Which values x may take is the support of the distribution.

The scale of a location family is one number for all pixels, ``fixed``, ``learned`` as a parameter, or ``optimal``:
while training, each batch is scored at the scale that suits it best, the root mean squared error for a normal (Rybkin,
Daniilidis and Levine, *Simple and Effective VAE Training with Calibrated Decoders*, 2021) and the mean absolute error
for a Laplace; a slow average over the batches is kept, and is the scale whenever the program does not train.  Where a
label is enumerated every class counts alike, so the average is too wide there: prefer ``learned``.

With values missing, ``seen_pixels.leave_out_missing`` makes a likelihood one of the values that are there.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.option_types import Positive, Whole
from pyro_vae.registry import Registry

MEMORY = 0.98  # of the optimal scale's average, a batch
MIN_SCALE = 1e-4
ROUNDING = 1e-3  # of a count that was divided and multiplied again


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


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood", ("event_shape",))


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


class _Located(Likelihood):
    """A location family with one scale for all pixels, held as its logarithm.

    A new one writes ``family(loc, scale)`` and ``best_scale(error)``.
    """

    log_scale: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        sigma: Literal["learned", "optimal", "fixed"] = "learned",
        scale: Positive = 1.0,
    ) -> None:
        super().__init__(event_shape)
        log_scale = torch.tensor(math.log(scale))
        self.optimal = sigma == "optimal"
        if sigma == "learned":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def family(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """The distribution of independent pixels."""
        raise NotImplementedError

    def best_scale(self, error: Tensor, share: Tensor | None = None) -> Tensor:
        """The scale of the highest likelihood for these errors x - loc, a scalar.

        Args:
            error: the errors, 0 where x is missing.
            share: the share of x that is there; None for all of it.
        """
        raise NotImplementedError

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        if self.optimal and self.training:
            return dist.Independent(_Profiled(self, params), self.event_dim)
        return self.family(params, self.log_scale.exp()).to_event(self.event_dim)


class _Profiled(dist.TorchDistribution):
    """A location family that is scored at the best scale for what it is given, and remembers that scale."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, likelihood: _Located, loc: Tensor) -> None:
        self.likelihood, self.loc = likelihood, loc
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Profiled:
        return _Profiled(self.likelihood, self.loc.expand(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        scale = self.likelihood.log_scale.exp()
        draw: Tensor = self.likelihood.family(self.loc, scale).rsample(torch.Size(sample_shape))
        return draw

    def log_prob(self, value: Tensor) -> Tensor:
        return self._at_best(self.likelihood.best_scale(value - self.loc)).log_prob(value)

    def log_prob_of_seen(self, value: Tensor, missing: Tensor) -> Tensor:
        """The log-probability with the scale that is best for what is there, 0 where x is missing."""
        filled = torch.where(missing, 0.0, value)
        error, share = torch.where(missing, 0.0, filled - self.loc), (~missing).to(self.loc.dtype).mean()
        return torch.where(missing, 0.0, self._at_best(self.likelihood.best_scale(error, share)).log_prob(filled))

    def _at_best(self, scale: Tensor) -> dist.TorchDistribution:
        log_scale = scale.clamp(min=MIN_SCALE).log()
        with torch.no_grad():
            self.likelihood.log_scale.lerp_(log_scale, 1 - MEMORY)
        return self.likelihood.family(self.loc, log_scale.exp())


@LIKELIHOODS.register("gaussian")
class Gaussian(_Located):
    """Independent normal pixels around the decoder's output, with one scale.

    Args:
        event_shape: the shape of one datum.
        sigma: how the scale is found; see the module.
        scale: the standard deviation, in pixel units, or where finding it starts.

    Example:
        >>> from pyro_vae.likelihoods import Gaussian
        >>> loc, x = torch.zeros(10, 4), torch.randn(10, 4)
        >>> scored = Gaussian((4,), sigma="optimal")(loc).log_prob(x)
        >>> best = torch.distributions.Normal(loc, x.square().mean().sqrt()).log_prob(x)
        >>> torch.allclose(scored, best.sum(-1))
        True
    """

    def family(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc, scale)

    def best_scale(self, error: Tensor, share: Tensor | None = None) -> Tensor:
        mean = error.square().mean()
        return (mean if share is None else mean / share).sqrt()


@LIKELIHOODS.register("laplace")
class Laplace(_Located):
    """Independent Laplace pixels around the decoder's output, with one scale: the L1 reconstruction.

    Args:
        event_shape: the shape of one datum.
        sigma: how the scale is found; see the module.
        scale: the mean absolute deviation, in pixel units, or where finding it starts.

    Example:
        >>> from pyro_vae.likelihoods import Laplace
        >>> p = Laplace((2,), sigma="fixed", scale=0.5)(torch.zeros(2))
        >>> p.log_prob(torch.tensor([1.0, -2.0]))  # minus the absolute errors over the scale: the normalizer is 1
        tensor(-6.)
    """

    def family(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(loc, scale)

    def best_scale(self, error: Tensor, share: Tensor | None = None) -> Tensor:
        mean = error.abs().mean()
        return mean if share is None else mean / share


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

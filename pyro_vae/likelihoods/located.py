"""Likelihoods of any numbers: a location family around the decoder's output, with one scale, or one for each entry.

The scale is one number for all pixels, or one for each where ``scales`` is ``each``: ``fixed``, ``learned`` as a
parameter, or ``optimal``: while training, each batch is scored at the scale that suits it best, the root mean squared
error for a normal (Rybkin, Daniilidis and Levine, *Simple and Effective VAE Training with Calibrated Decoders*, 2021)
and the mean absolute error for a Laplace; a slow average over the batches is kept, and is the scale whenever the
program does not train.  Where a label is enumerated every class counts alike, so the average is too wide there: prefer
``learned``.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood
from pyro_vae.option_types import Positive

MEMORY = 0.98  # of the optimal scale's average, a batch
MIN_SCALE = 1e-4
NO_SHARE = 1e-9  # of x, where all of it is missing


class _Located(Likelihood):
    """A location family with one scale for all pixels or for each, held as its logarithm.

    A new one writes ``family(loc, scale)`` and ``best_scale(error)``.
    """

    log_scale: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        sigma: Literal["learned", "optimal", "fixed"] = "learned",
        scale: Positive = 1.0,
        scales: Literal["one", "each"] = "one",
    ) -> None:
        super().__init__(event_shape)
        log_scale = torch.full(event_shape if scales == "each" else (), math.log(scale))
        self.optimal = sigma == "optimal"
        if sigma == "learned":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def family(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """The distribution of independent pixels."""
        raise NotImplementedError

    def best_scale(self, error: Tensor, share: Tensor | None = None) -> Tensor:
        """The scale of the highest likelihood for these errors x - loc, a scalar, or one for each entry.

        Args:
            error: the errors, 0 where x is missing.
            share: the share of x that is there, of the shape of the scale; None for all of it.
        """
        raise NotImplementedError

    def average(self, values: Tensor) -> Tensor:
        """The average of values of x's shape over all that has one scale."""
        batch = tuple(range(values.dim() - self.log_scale.dim()))
        return values.mean(batch) if batch else values

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
        error, share = (
            torch.where(missing, 0.0, filled - self.loc),
            self.likelihood.average((~missing).to(self.loc.dtype)),
        )
        return torch.where(missing, 0.0, self._at_best(self.likelihood.best_scale(error, share)).log_prob(filled))

    def _at_best(self, scale: Tensor) -> dist.TorchDistribution:
        log_scale = scale.clamp(min=MIN_SCALE).log()
        with torch.no_grad():
            seen = torch.where(scale > 0, log_scale, self.likelihood.log_scale)  # a column may be missing in a batch
            self.likelihood.log_scale.lerp_(seen, 1 - MEMORY)
        return self.likelihood.family(self.loc, log_scale.exp())


@LIKELIHOODS.register("gaussian")
class Gaussian(_Located):
    """Independent normal pixels around the decoder's output, with one scale.

    Args:
        event_shape: the shape of one datum.
        sigma: how the scale is found; see the module.
        scale: the standard deviation, in pixel units, or where finding it starts.
        scales: ``one`` for all of x, or one for ``each`` entry.

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
        mean = self.average(error.square())
        return (mean if share is None else mean / share.clamp(min=NO_SHARE)).sqrt()


@LIKELIHOODS.register("laplace")
class Laplace(_Located):
    """Independent Laplace pixels around the decoder's output, with one scale: the L1 reconstruction.

    Args:
        event_shape: the shape of one datum.
        sigma: how the scale is found; see the module.
        scale: the mean absolute deviation, in pixel units, or where finding it starts.
        scales: ``one`` for all of x, or one for ``each`` entry.

    Example:
        >>> from pyro_vae.likelihoods import Laplace
        >>> p = Laplace((2,), sigma="fixed", scale=0.5)(torch.zeros(2))
        >>> p.log_prob(torch.tensor([1.0, -2.0]))  # minus the absolute errors over the scale: the normalizer is 1
        tensor(-6.)
    """

    def family(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(loc, scale)

    def best_scale(self, error: Tensor, share: Tensor | None = None) -> Tensor:
        mean = self.average(error.abs())
        return mean if share is None else mean / share.clamp(min=NO_SHARE)

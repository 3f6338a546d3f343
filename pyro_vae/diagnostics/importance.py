r"""Importance sampling with the guide as proposal: what its weights say of a datum, and of the guide itself.

For S draws z_s ~ q(z | x) with weights w_s = p(x, z_s) / q(z_s | x), per datum,

    log p(x) ~= log mean_s w_s,        ESS = (sum_s w_s)^2 / sum_s w_s^2,
    L_K = E[log mean_{k <= K} w_k],    which rises from the ELBO at K = 1 to log p(x)

(Burda, Grosse and Salakhutdinov 2016; Kong 1992).  The shape k-hat of the generalized Pareto distribution that fits the
largest weights says whether any of this can be relied on: the mean of weights has a finite variance below 0.5, and is
of use up to min(1 - 1 / log10 S, 0.7) (Vehtari et al. 2024; Yao et al. 2018).  It is one number per datum: weights of
many data together would be as heavy as the worst of them.

Self-normalized weights also estimate the posterior's moments; where they can be relied on, the guide's own moments are
measured against these.  What no weight shows is a mode that the guide never visits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_vae.arviz_bridge.pareto import USABLE_K_HAT, psis
from pyro_vae.errors import InputError
from pyro_vae.pairs.memory import at_once
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float, Int


@dataclass(frozen=True)
class Importance:
    """Importance weights of S draws for each of N data; all metrics per datum have shape (N,).

    Args:
        log_weights: log p(x, z) - log q(z | x), labels summed out, nats, shape (S, N).
        joint_log_weights: the same of the draws together with the labels drawn beside them, shape (S, N); equal where
            no label is enumerated.
        u: the draws, unconstrained, shape (S, N, D).
        names: the names of their D coordinates.

    Example:
        >>> from pyro_vae.diagnostics import importance_sample
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> found = importance_sample(Target(Pair(model, MeanField(model)).probe(x), x), num_samples=100)
        >>> found.log_weights.shape, found.k_limit
        (torch.Size([100, 3]), 0.5)
    """

    log_weights: Float[Tensor, "S N"]
    joint_log_weights: Float[Tensor, "S N"]
    u: Float[Tensor, "S N D"]
    names: tuple[str, ...]

    @property
    def num_samples(self) -> int:
        """The number of samples per datum, S."""
        return self.log_weights.shape[0]

    @cached_property
    def num_bad(self) -> Int[Tensor, "N"]:
        """The number of weights that are NaN or infinite; every metric but k-hat leaves them out."""
        return (self.log_weights.isnan() | self.log_weights.isposinf()).sum(0)

    @cached_property
    def _sound(self) -> Float[Tensor, "S N"]:
        """The weights without the bad ones, in double precision."""
        bad = self.log_weights.isnan() | self.log_weights.isposinf()
        return self.log_weights.double().masked_fill(bad, -math.inf)

    @property
    def elbo(self) -> Float[Tensor, "N"]:
        """The mean of the joint log weights but the bad ones, nats; minus infinity where a weight is zero."""
        bad = self.joint_log_weights.isnan() | self.joint_log_weights.isposinf()
        return self.joint_log_weights.double().masked_fill(bad, 0.0).sum(0) / (~bad).sum(0)

    @property
    def log_likelihood(self) -> Float[Tensor, "N"]:
        """The estimate of log p(x), nats, from all S draws."""
        return self._sound.logsumexp(0) - self._num_sound.log()

    @property
    def standard_error(self) -> Float[Tensor, "N"]:
        """The standard error of the log-likelihood, nats, by the delta method: sqrt((S / ESS - 1) / S)."""
        return ((self.num_samples / self.ess.clamp(min=1) - 1) / self.num_samples).clamp(min=0).sqrt()

    @property
    def ess(self) -> Float[Tensor, "N"]:
        """The effective sample size, from 1 to S; 0 where every weight is zero or bad."""
        return (2 * self._sound.logsumexp(0) - (2 * self._sound).logsumexp(0)).exp().nan_to_num(0.0)

    @cached_property
    def _smoothed(self) -> tuple[Float[Tensor, "S N"], Float[Tensor, "N"]]:
        return psis(self.joint_log_weights)

    @property
    def k_hat(self) -> Float[Tensor, "N"]:
        """The Pareto shape of the draws' weights; infinite where a weight is NaN or infinite."""
        return self._smoothed[1]

    @property
    def k_limit(self) -> float:
        """The largest k-hat with which the weights are of use: min(1 - 1 / log10 S, 0.7)."""
        return min(1 - 1 / math.log10(self.num_samples), USABLE_K_HAT) if self.num_samples > 10 else 0.0

    def curve(self, sizes: Sequence[int]) -> dict[int, Float[Tensor, "N"]]:
        """The bound L_K per datum, nats, for each K, averaged over the disjoint groups of K draws.

        Args:
            sizes: values of K, from 1 to S.
        """
        bounds = {}
        for size in sizes:
            groups = self._sound[: self.num_samples // size * size].unflatten(0, (-1, size))
            bounds[size] = (groups.logsumexp(1) - math.log(size)).mean(0)
        return bounds

    @cached_property
    def moments(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """Mean and standard deviation of the posterior by smoothed weights, shape (N, D) each."""
        weights = self._smoothed[0].double().exp().unsqueeze(-1)
        mean = (weights * self.u.double()).sum(0)
        variance = (weights * (self.u.double() - mean).square()).sum(0)
        return mean, variance.sqrt()

    @property
    def mean_error(self) -> Float[Tensor, "N"]:
        """The distance of the guide's mean from the posterior's, in its standard deviations: root mean square of D."""
        mean, sd = self.moments
        return ((self.u.double().mean(0) - mean) / sd).square().mean(-1).sqrt()

    @property
    def sd_ratio(self) -> Float[Tensor, "N"]:
        """The guide's standard deviation over the posterior's: the geometric mean over D."""
        return (self.u.double().std(0).log() - self.moments[1].log()).mean(-1).exp()

    @property
    def _num_sound(self) -> Float[Tensor, "N"]:
        return (self.num_samples - self.num_bad).double()


def importance_sample(target: Target, *, num_samples: int = 1000, seed: int = 0) -> Importance:
    """Draw from the guide and weigh the draws, some data and some draws at a time.

    Args:
        target: the posterior of N data; with latents outside the plate over data they are one datum, and N is 1.
        num_samples: S.
        seed: the seed of the draws.

    Raises:
        InputError: if there are no samples to take, or a latent site is discrete and not enumerated.

    Example:
        >>> from pyro_vae.diagnostics import importance_sample
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = LinearGaussian((3,)), torch.randn(20, 3)
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> found = importance_sample(target, num_samples=2000)
        >>> torch.allclose(found.log_likelihood.float(), model.evidence(x), atol=0.2)  # known of this model
        True
    """
    if num_samples < 1:
        raise InputError("at least one sample per datum", str(num_samples), "use --samples 1000")
    parts = []
    with target.pair.looked_at(seed):
        for part, counts in _chunks(target, num_samples):
            draws = [part.draw(count) for count in counts]
            log_weights = torch.cat([draw.log_evidence_weight for draw in draws]).cpu()
            joint = torch.cat([draw.log_weight for draw in draws]).cpu()
            parts.append((log_weights, joint, torch.cat([draw.u for draw in draws]).cpu()))
    log_weights, joint, u = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    return Importance(log_weights, joint, u, part.names)


def _chunks(target: Target, num_samples: int) -> Iterator[tuple[Target, list[int]]]:
    """Posteriors of some data each, and the draws of each run on them."""
    widest = target.probed.widest(target.x)
    if target.probed.data_dim is None:
        size, at_a_draw = 1, widest * len(target.x)
    else:
        size = at_once(widest * num_samples if target.side_by_side else widest)
        at_a_draw = widest * size
    counts = [len(part) for part in torch.arange(num_samples).split(at_once(at_a_draw))]
    for start in range(0, target.num_data, size):
        yield target if target.probed.data_dim is None else target[start : start + size], counts

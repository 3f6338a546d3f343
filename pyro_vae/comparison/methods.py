r"""What one method says of the posteriors of some data: a guide, NUTS, or the exact answer.

The divergence of a guide is KL(q || p(z | x)) = log p(x) - ELBO(q), in nats per datum: in closed form where both are
normal; otherwise the ELBO is a mean over draws, and log p(x) is exact where the posterior is, and from bridge sampling
(see ``bridge``) where NUTS is the reference.  That of NUTS from an exact normal posterior is of the normal with the
moments of its draws, too large by about D (D + 3) / (4 ESS).  k-hat of a datum is the Pareto shape of the importance
ratios (Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto Smoothed Importance Sampling*, 2024; for guides Yao et al.,
*Yes, but Did It Work?*, 2018).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal, kl_divergence

from pyro_vae.arviz_bridge.pareto import psis
from pyro_vae.posterior.bridge_sampling import bridge_evidence, normal_of
from pyro_vae.posterior.mcmc import Chains
from pyro_vae.posterior.target import Target

EXACT, NUTS = "exact", "nuts"
DRAWS_AT_ONCE = 1000
NUM_DRAWS = 10_000


@dataclass(frozen=True)
class Method:
    """The answer of one method about the posteriors of N data.

    Args:
        name: the name of the guide, or ``nuts`` or ``exact``.
        u: draws, unconstrained, shape (S, N, D).
        mean: shape (N, D), double; in closed form where it is known.
        covariance: shape (N, D, D), double; in closed form where it is known.
        is_normal: whether it is a normal, which these two describe.
        seconds: that the fit or the chains took.
        elbo: per datum, nats, shape (N,); of the exact posterior log p(x) itself, None for NUTS.
        k_hat: per datum, shape (N,), of guides.
        kl: KL(q || reference) per datum, nats, shape (N,); None without a reference.
    """

    name: str
    u: Tensor
    mean: Tensor
    covariance: Tensor
    is_normal: bool
    seconds: float
    elbo: Tensor | None = None
    k_hat: Tensor | None = None
    kl: Tensor | None = None

    @property
    def stddev(self) -> Tensor:
        """Standard deviations, shape (N, D)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()

    @property
    def correlation(self) -> Tensor:
        """Correlation matrices, shape (N, D, D)."""
        return self.covariance / (self.stddev.unsqueeze(-1) * self.stddev.unsqueeze(-2))

    @property
    def normal(self) -> MultivariateNormal:
        """The normal with its moments."""
        return MultivariateNormal(self.mean, self.covariance)


def of_guide(name: str, target: Target, seconds: float) -> Method:
    """The answer of the guide of a target."""
    parts = [target.draw(DRAWS_AT_ONCE) for _ in range(NUM_DRAWS // DRAWS_AT_ONCE)]
    u = torch.cat([part.u for part in parts])
    weights = torch.cat([part.log_weight for part in parts])
    known = _as_normal(_stated_posterior(target.pair.guide, target))
    moments = known or normal_of(u)
    elbo, k_hat = weights.double().mean(0), psis(weights)[1].double()  # the rounding of weights is that of their type
    return Method(name, u, moments.mean, moments.covariance_matrix, known is not None, seconds, elbo, k_hat)


def of_nuts(chains: Chains) -> Method:
    """The answer of NUTS."""
    moments = normal_of(chains.draws)
    return Method(NUTS, chains.draws, moments.mean, moments.covariance_matrix, False, chains.seconds)


def of_exact(target: Target) -> Method | None:
    """The exact posterior, where the model has a method ``posterior(x)`` that states it; its ELBO is the evidence."""
    start = time.perf_counter()
    posterior = _stated_posterior(target.pair.model, target)
    if posterior is None:
        return None
    u = posterior.sample(torch.Size([NUM_DRAWS]))
    known = _as_normal(posterior)
    moments = known or _stated_moments(posterior) or normal_of(u)
    evidence = (target.log_density(u[:1]) - posterior.log_prob(u[:1])).double()[0]
    seconds = time.perf_counter() - start
    return Method(EXACT, u, moments.mean, moments.covariance_matrix, known is not None, seconds, evidence)


def with_divergences(
    methods: list[Method], reference: Method, target: Target, chains: Chains, seed: int
) -> list[Method]:
    """The methods with KL(q || reference) of each, as the module's documentation says."""
    evidence = bridge_evidence(target, chains, seed) if reference.elbo is None else reference.elbo

    def divergence(method: Method) -> Tensor | None:
        if method is reference:
            return torch.zeros(target.num_data, dtype=torch.float64)
        if reference.is_normal and (method.is_normal or method.name == NUTS):
            return kl_divergence(method.normal, reference.normal)
        return None if method.elbo is None else evidence - method.elbo

    return [replace(method, kl=divergence(method)) for method in methods]


def _stated_posterior(program: Any, target: Target) -> dist.TorchDistribution | None:
    """What a program's method ``posterior(x)`` gives, if that is about the target's vector, all of it and no more."""
    if not hasattr(program, "posterior") or target.probed.enumerated or len(target.sites) != 1:
        return None
    if target.probed.data_dim is None:
        return None
    with target.pair.evaluating(), target.pair.scope():
        found: dist.TorchDistribution = program.posterior(target.x)
    support = found.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    plain = support in (constraints.real, constraints.real_vector)
    return found if plain and found.batch_shape + found.event_shape == (target.num_data, target.size) else None


def _as_normal(d: dist.TorchDistribution | None) -> MultivariateNormal | None:
    """A distribution as a normal in double precision, if it is one."""
    if isinstance(d, MultivariateNormal | LowRankMultivariateNormal):
        return _stated_moments(d)
    if isinstance(d, Independent) and isinstance(d.base_dist, Normal):
        return MultivariateNormal(d.mean.double(), torch.diag_embed(d.variance.double()))
    return None


def _stated_moments(d: dist.TorchDistribution) -> MultivariateNormal | None:
    """The normal with the moments that a distribution states, if it states its covariance matrix."""
    if not hasattr(d, "covariance_matrix"):
        return None
    return MultivariateNormal(d.mean.double(), d.covariance_matrix.double())

r"""The evidence of each datum from draws of its posterior: bridge sampling.

With g a normal fitted to half of the draws, u_i the n_1 other draws and v_j n_2 draws from g, the evidence solves

    p(x) = [1 / n_2 sum_j l(v_j) / (s_1 l(v_j) + s_2 p(x))] / [1 / n_1 sum_i 1 / (s_1 l(u_i) + s_2 p(x))],

l = f / g, f(u) = p(x, u), s_1 = n_1 / (n_1 + n_2), s_2 = 1 - s_1.  Meng and Wong, *Simulating Ratios of Normalizing
Constants via a Simple Identity*, 1996; with normals, Gronau et al., *A Tutorial on Bridge Sampling*, 2017.  n_1 is the
effective number of draws, as the draws of a chain are correlated.
"""

from __future__ import annotations

import math

import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.posterior.mcmc import Chains
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float

ITERATIONS = 1000
TOLERANCE = 1e-8


def bridge_evidence(target: Target, chains: Chains, seed: int = 0) -> Float[Tensor, "N"]:
    """Log p(x), nats, shape (N,), double.

    Args:
        target: the posteriors.
        chains: draws from them.
        seed: the seed of the draws of the normals.
    """
    half = chains.u.shape[1] // 2
    fitted, others = chains.u[:, :half].flatten(0, 1), chains.u[:, half:].flatten(0, 1)
    g = normal_of(fitted)
    with target.pair.looked_at(seed):
        drawn = g.sample((len(others),)).to(others.dtype)
        of_draws, of_g = (target.log_density(u).double() - g.log_prob(u.double()) for u in (others, drawn))
    return _solve(of_draws, of_g, (chains.ess / 2).clamp(1, len(others)))


def normal_of(draws: Float[Tensor, "S N D"]) -> MultivariateNormal:
    """The normal with the mean and covariance of each datum's draws of shape (S, N, D), in double precision.

    Raises:
        InputError: if the draws of a datum span fewer than D dimensions, as too few do, or chains that stand still.
    """
    draws = draws.double()
    centred = (draws - draws.mean(0)).movedim(0, 1)
    try:
        return MultivariateNormal(draws.mean(0), centred.mT @ centred / (len(draws) - 1))
    except ValueError:
        needed = f"draws that vary in all {draws.shape[-1]} dimensions of each datum"
        raise InputError(needed, f"{len(draws)} that do not", "draw more: --samples 2000 --warmup 500") from None


def _solve(of_draws: Tensor, of_g: Tensor, effective: Tensor) -> Tensor:
    """The fixed point, from log l at the draws and at those of g, both of shape (n, N)."""
    share = effective / (effective + len(of_g))
    log_share, log_rest = share.log(), (1 - share).log()
    found = of_draws.median(0).values
    for _ in range(ITERATIONS):
        above = of_g - torch.logaddexp(log_share + of_g, log_rest + found)
        below = -torch.logaddexp(log_share + of_draws, log_rest + found)
        new = above.logsumexp(0) - math.log(len(of_g)) - below.logsumexp(0) + math.log(len(of_draws))
        if (new - found).abs().max() < TOLERANCE:
            return new
        found = new
    return found

r"""Whether Markov chains have mixed: R-hat and effective sample size of rank-normalized, split chains.

Vehtari, Gelman, Simpson, Carpenter and Bürkner, *Rank-Normalization, Folding, and Localization: An Improved R-hat for
Assessing Convergence of MCMC*, Bayesian Analysis, 2021.  Each chain is split into halves, which makes M chains of n
draws, S in all; each draw is replaced by Phi^{-1}((r - 3/8) / (S + 1/4)), r its rank among the S.  With W the mean
variance within chains, B / n the variance of their means and V = (n - 1) / n W + B / n,

    R-hat = sqrt(V / W),     ESS = S / (-1 + 2 sum_k P_k),     P_k = rho_{2k} + rho_{2k+1},
    rho_t = 1 - (W - mean over chains of the autocovariance at lag t) / V,

the sum up to the first negative P_k, of which half a positive rho_{2k} counts, and made monotone (Geyer, *Practical
Markov Chain Monte Carlo*, 1992; as in Stan).  The R-hat here is the larger of that of the draws and that of their
distances from the median ("folded"), which sees chains that differ in scale alone.  Pyro's own effective sample size
was up to half as large again as this one where chains disagree.
"""

from __future__ import annotations

import math

import torch
from pyro.ops.stats import gelman_rubin
from torch import Tensor

from pyro_vae.shapes import Float


def r_hat(draws: Float[Tensor, "C S *shape"]) -> Float[Tensor, "*shape"]:
    r"""Rank-normalized, split and folded R-hat; 1 where chains cannot be told apart.

    Args:
        draws: shape (chains, draws, \*shape), at least four draws.

    Returns:
        Shape (\*shape), double; infinite where a draw is not a number, or where chains stand still, each in its place.
    """
    split = _split(draws)
    flat = split.flatten(0, 1)
    folded = (split - flat.quantile(0.5, dim=0)).abs()
    found = torch.maximum(*(gelman_rubin(_rank_normalized(values)) for values in (split, folded)))
    found = found.nan_to_num(torch.inf, posinf=torch.inf)
    return torch.where((flat == flat[0]).all(0), 1.0, found).reshape(draws.shape[2:])


def bulk_ess(draws: Float[Tensor, "C S *shape"]) -> Float[Tensor, "*shape"]:
    r"""The effective sample size of the bulk, at most S log10 S.

    Args:
        draws: shape (chains, draws, \*shape), at least four draws.

    Returns:
        Shape (\*shape), double; 0 where a draw is not a number.
    """
    return _ess(_rank_normalized(_split(draws))).reshape(draws.shape[2:])


def mean_ess(draws: Float[Tensor, "C S *shape"]) -> Float[Tensor, "*shape"]:
    r"""The effective sample size of the mean, of the draws as they are; arguments and result as for ``bulk_ess``."""
    return _ess(_split(draws)).reshape(draws.shape[2:])


def _ess(chains: Float[Tensor, "C S *shape"]) -> Float[Tensor, "*shape"]:
    num_chains, num_draws = chains.shape[:2]
    total = num_chains * num_draws
    covariance = _autocovariance(chains)
    within = covariance[0] * num_draws / (num_draws - 1)
    variance = covariance[0] + chains.mean(1).var(0)
    rho = 1 - (within - covariance) / variance
    rho[0] = 1
    rho = rho[: num_draws // 2 * 2].unflatten(0, (-1, 2))
    pairs = rho.sum(1)
    past = (pairs < 0).cumsum(0)
    last = torch.where((past == 1) & (pairs < 0), rho[:, 0].clamp(min=0), 0.0).sum(0)
    autocorrelation = -1 + 2 * torch.where(past > 0, 0.0, pairs).cummin(0).values.sum(0) + last
    return (total / autocorrelation.clamp(min=1 / math.log10(total))).nan_to_num(0.0)


def _split(draws: Tensor) -> Tensor:
    """Both halves of each chain as chains of their own, (2 chains, draws // 2, K), in double precision."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).double().cpu().flatten(2)


def _rank_normalized(draws: Float[Tensor, "C S *shape"]) -> Float[Tensor, "C S *shape"]:
    from scipy.stats import rankdata  # late: half a second to import

    flat = draws.flatten(0, 1)
    ranks = torch.as_tensor(rankdata(flat.numpy(), axis=0))  # ties share their mean rank
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).view_as(draws)


def _autocovariance(draws: Float[Tensor, "C S *shape"]) -> Float[Tensor, "S *shape"]:
    """The mean over chains of their autocovariances, by lag, shape (n, K)."""
    num_draws = draws.shape[1]
    spectrum = torch.fft.rfft(draws - draws.mean(1, keepdim=True), n=2 * num_draws, dim=1)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(0)
    return torch.fft.irfft(power, n=2 * num_draws, dim=0)[:num_draws] / num_draws

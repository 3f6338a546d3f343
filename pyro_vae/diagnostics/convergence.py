r"""Whether stochastic optimization has converged, from the iterates of the parameters.

Near an optimum, with a constant learning rate, the iterates of stochastic gradient descent are a stationary Markov
chain about it, so the diagnostics of Markov chains apply to *them* (Dhaka, Catalina, Andersen, Magnusson, Huggins and
Vehtari, *Robust, Accurate Stochastic Optimization for Variational Inference*, 2020).  They say nothing when they are
computed from a trace of the loss: its noise hides parameters that still drift where the loss is flat.

*R-hat.*  Each run is split in two, so that a drift shows as a difference; runs from several starts count as chains, so
that optima that are not the same do too.  Over the chains, of n iterates each,

    R-hat = sqrt(((n - 1) / n W + B / n) / W),

W the mean variance within and B / n the variance between their means, of normal scores of the ranks, and the same for
the distances from the median; the larger of both counts (Vehtari, Gelman, Simpson, Carpenter and Bürkner,
*Rank-Normalization, Folding, and Localization: An Improved R-hat*, 2021).  It should be at most 1.1.

*Monte Carlo standard error.*  The mean of the iterates is the estimate of the optimum, with the standard error
sd / sqrt(ESS), ESS the effective sample size of the autocorrelated iterates.  It should be below 0.1 of the parameter's
unit: the standard deviation of the iterates unless another is given, which asks for an ESS of 100.  Dhaka et al. have
the locations of an approximate posterior in mind, whose unit is that posterior's standard deviation.

Weights of neural networks are not identified, so that runs from several starts differ in them though they agree in
what they say.  Compare what is identified: means and log-standard deviations of posteriors, say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.ops.stats import gelman_rubin
from torch import Tensor

from pyro_vae.errors import InputError

LARGEST_R_HAT = 1.1
LARGEST_MCSE = 0.1
FEWEST_STEPS = 8
NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Convergence:
    """Diagnostics of the iterates of K parameters.

    Args:
        r_hat: shape (K,); infinite where chains stand still at different values, or an iterate is not finite.
        ess: the effective sample size of each mean, shape (K,).
        mcse: the standard error of each mean, in the parameter's unit, shape (K,).
        mean: the mean of the iterates, shape (K,).
        num_runs: the starts.
        num_steps: the iterates of each.
        names: of the parameters, or empty.
    """

    r_hat: Tensor
    ess: Tensor
    mcse: Tensor
    mean: Tensor
    num_runs: int
    num_steps: int
    names: tuple[str, ...] = ()

    @property
    def converged_parameters(self) -> Tensor:
        """Which parameters have R-hat at most 1.1 and a standard error below 0.1, shape (K,)."""
        return (self.r_hat <= LARGEST_R_HAT) & (self.mcse < LARGEST_MCSE)

    @property
    def converged(self) -> bool:
        """Whether all of them have."""
        return bool(self.converged_parameters.all())

    def as_dict(self) -> dict[str, Any]:
        """The worst figures, the share of parameters that have converged, and the five with the largest R-hat."""
        order = self.r_hat.argsort(descending=True)[:5].tolist()
        worst = [
            {
                "name": self.names[k] if self.names else str(k),
                "r_hat": self.r_hat[k].item(),
                "mcse": self.mcse[k].item(),
                "ess": self.ess[k].item(),
            }
            for k in order
        ]
        return {
            "converged": self.converged,
            "share_converged": self.converged_parameters.double().mean().item(),
            "max_r_hat": self.r_hat.max().item(),
            "max_mcse": self.mcse.max().item(),
            "min_ess": self.ess.min().item(),
            "num_runs": self.num_runs,
            "num_steps": self.num_steps,
            "worst": worst,
        }


def convergence(iterates: Tensor, unit: Tensor | None = None, names: tuple[str, ...] = ()) -> Convergence:
    """Diagnose the iterates of parameters, unconstrained, from the last part of one run or of several.

    Args:
        iterates: shape (runs, steps, K), or (steps, K) for one run, 8 steps or more.  Never the trace of a loss.
        unit: what a standard error is measured in, shape (K,); the standard deviation within the half runs unless
            given.
        names: of the K parameters.

    Raises:
        InputError: if there are too few steps, no parameters, or the shapes do not fit.
    """
    if iterates.dim() == 2:
        iterates = iterates.unsqueeze(0)
    if iterates.dim() != 3 or iterates.shape[1] < FEWEST_STEPS or not iterates.numel():
        raise InputError(
            f"iterates of shape (runs, steps, K) with {FEWEST_STEPS} steps or more",
            f"shape {tuple(iterates.shape)}",
            "keep the parameters of more steps",
        )
    runs, steps, size = iterates.shape
    if (unit is not None and unit.shape != (size,)) or len(names) not in (0, size):
        got = f"{len(names)} names and a unit of shape {None if unit is None else tuple(unit.shape)}"
        raise InputError(f"a unit and a name for each of {size} parameters", got, "leave them out, or give all")
    columns = iterates.detach().cpu().split(max(1, NUMBERS_AT_ONCE // (runs * steps)), -1)
    parts = [_diagnose(_halves(part.double())) for part in columns]
    r_hat, ess, spread, mean = (torch.cat(part) for part in zip(*parts, strict=True))
    scale = spread if unit is None else unit.detach().double().cpu()
    still = torch.where((r_hat == 1) & (spread == 0), 0.0, torch.inf)
    mcse = torch.where(spread > 0, spread / ess.sqrt() / scale, still)
    return Convergence(r_hat, ess, mcse, mean, runs, steps, names)


def split_r_hat(chains: Tensor) -> Tensor:
    """The rank-normalized R-hat of chains that were split already, shape (K,); see the module.

    Args:
        chains: finite, shape (chains, steps, K).
    """
    folded = (chains - chains.flatten(0, 1).quantile(0.5, dim=0)).abs()
    return torch.maximum(gelman_rubin(_normal_scores(chains)), gelman_rubin(_normal_scores(folded)))


def effective_sample_size(chains: Tensor) -> Tensor:
    """Of the mean, shape (K,): Geyer's initial monotone sequence over all chains, as Vehtari et al. (2021) have it.

    Pyro's own divides the autocovariance at lag t by n - t, not n, and finds half as many again in a drifting chain.

    Args:
        chains: finite and not constant, shape (chains, steps, K).
    """
    num_chains, n, _ = chains.shape
    frequencies = torch.fft.rfft(chains - chains.mean(1, keepdim=True), n=2 * n, dim=1).abs().square()
    covariance = torch.fft.irfft(frequencies, n=2 * n, dim=1)[:, :n].mean(0) / n  # by lag, (n, K)
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + chains.mean(1).var(0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1
    even, odd = correlation[: n // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    positive = (even + odd > 0).cumprod(0)
    next_even = (even * (positive.roll(1, 0) - positive)).clamp(min=0)[1:].sum(0)  # of the first pair left out
    time = 2 * ((even + odd).cummin(0).values * positive).sum(0) + next_even - 1
    size = num_chains * n
    return size / time.clamp(min=1 / math.log10(size))


def _halves(iterates: Tensor) -> Tensor:
    """Every run as two chains, (runs, steps, K) to (2 runs, steps // 2, K), the middle of an odd number left out."""
    half = iterates.shape[1] // 2
    return torch.cat([iterates[:, :half], iterates[:, -half:]])


def _diagnose(chains: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R-hat, effective sample size, standard deviation within the chains, and mean; each of shape (K,)."""
    finite = chains.isfinite().all(1).all(0)
    still = chains.var(1).amax(0) == 0
    moving = finite & ~still
    r_hat, ess = torch.full((2, chains.shape[-1]), torch.nan, dtype=chains.dtype)
    if moving.any():
        r_hat[moving] = split_r_hat(chains[..., moving]).nan_to_num(nan=torch.inf)
        ess[moving] = effective_sample_size(chains[..., moving])
    same = (chains == chains[:1, :1]).all(1).all(0)
    r_hat = torch.where(moving, r_hat, torch.where(same, 1.0, torch.inf))
    most = chains.shape[0] * chains.shape[1]
    ess = torch.where(moving, ess.clamp(1, most), torch.where(same, float(most), 0.0))
    spread = torch.where(moving, chains.var(1).mean(0).sqrt(), 0.0)
    return r_hat, ess, spread, chains.flatten(0, 1).mean(0)


def _normal_scores(chains: Tensor) -> Tensor:
    """Phi^-1((rank - 3/8) / (S + 1/4)) among all S iterates of a parameter, ties at their mean rank."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(chains.flatten(0, 1).numpy(), axis=0))
    return torch.special.ndtri((ranks - 0.375) / (len(ranks) + 0.25)).reshape(chains.shape)

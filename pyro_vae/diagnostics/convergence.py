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
what they say.  Compare what is identified: for example means and log-standard deviations of posteriors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.memory import at_once
from pyro_vae.posterior.mixing import mean_ess, r_hat
from pyro_vae.shapes import Bool, Float

LARGEST_ITERATE_R_HAT = 1.1  # of iterates, wider than the 1.05 of Markov chains
LARGEST_MCSE = 0.1
FEWEST_STEPS = 8


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
        names: the names of the parameters, or empty.
    """

    r_hat: Float[Tensor, "K"]
    ess: Float[Tensor, "K"]
    mcse: Float[Tensor, "K"]
    mean: Float[Tensor, "K"]
    num_runs: int
    num_steps: int
    names: tuple[str, ...] = ()

    @property
    def converged_parameters(self) -> Bool[Tensor, "K"]:
        """Which parameters have R-hat at most 1.1 and a standard error below 0.1, shape (K,)."""
        return (self.r_hat <= LARGEST_ITERATE_R_HAT) & (self.mcse < LARGEST_MCSE)

    @property
    def converged(self) -> bool:
        """Whether all of them have."""
        return bool(self.converged_parameters.all())

    def as_dict(self) -> dict[str, Any]:
        """The worst metrics, the share of parameters that have converged, and the five with the largest R-hat."""
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
        names: the names of the K parameters.

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
    columns = iterates.detach().cpu().split(at_once(runs * steps), -1)
    parts = [_diagnose(part.double()) for part in columns]
    rest, ess, spread, mean = (torch.cat(part) for part in zip(*parts, strict=True))
    scale = spread if unit is None else unit.detach().double().cpu()
    still = torch.where((rest == 1) & (spread == 0), 0.0, torch.inf)
    mcse = torch.where(spread > 0, spread / ess.sqrt() / scale, still)
    return Convergence(rest, ess, mcse, mean, runs, steps, names)


def _diagnose(iterates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R-hat, effective sample size, standard deviation within the half runs, and mean; each of shape (K,)."""
    half = iterates.shape[1] // 2
    chains = torch.cat([iterates[:, :half], iterates[:, -half:]])
    moving = chains.isfinite().all(1).all(0) & (chains.var(1).amax(0) > 0)
    same = (chains == chains[:1, :1]).all(1).all(0)
    most = chains.shape[0] * chains.shape[1]
    ess = torch.where(moving, mean_ess(iterates).clamp(1, most), torch.where(same, float(most), 0.0))
    spread = torch.where(moving, chains.var(1).mean(0).sqrt(), 0.0)
    return r_hat(iterates), ess, spread, chains.flatten(0, 1).mean(0)

r"""Hamiltonian Monte Carlo on the posterior of chosen data: what a guide is compared with.

The No-U-Turn sampler (Hoffman and Gelman, *The No-U-Turn Sampler*, 2014; Betancourt, *A Conceptual Introduction to
Hamiltonian Monte Carlo*, 2017) is Pyro's.  It runs on the joint vector of all N data, whose posteriors are independent:

    log p(u_1, …, u_N | x) = sum_n log f(u_n; x_n) + const,

so one evaluation of the decoder serves all of them.  Value and gradient come together, from a compiled graph where that
pays.  The chains start at draws from the prior, which is wider than a posterior and, unlike the guide, knows nothing of
the answer that is checked: a mode that the guide misses can be found, and chains that end in different modes are seen.
The guide gives only the first mass matrix, the covariance of its draws, which the warm-up then replaces: units as wide
as the prior beside others a tenth as wide would cost hundreds of gradients a transition until it is found.

Draws are a reference only if they say so themselves: no divergent transition, R-hat small, effective sample size large.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import NUTS
from torch import Tensor

from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.pairs.seeding import begin_noise
from pyro_vae.posterior.mass_matrix import BlockPerDatum, shrunk_covariance
from pyro_vae.posterior.mixing import bulk_ess, r_hat
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Bool, Float

logger = logging.getLogger(__name__)

LARGEST_R_HAT = 1.05
SMALLEST_ESS = 400
FEWEST_DRAWS = 4
STARTS = 100
GUIDE_DRAWS = 500
ENERGY_JUMPS = 12  # gradients a transition, about: what compiling is weighed against

ValueAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sampling:
    """The numbers of draws, of warm-up steps and of chains of NUTS.

    Args:
        num_samples: draws of each chain.
        num_warmup: transitions before them.
        num_chains: how many chains.

    Raises:
        InputError: if there is nothing to draw.

    Example:
        >>> from pyro_vae.posterior import Sampling
        >>> Sampling(2000)
        Sampling(num_samples=2000, num_warmup=500, num_chains=4)
        >>> Sampling(num_samples=1)
        Traceback (most recent call last):
            ...
        pyro_vae.errors.InputError: expected at least 4 draws per chain; got 1; use num_samples=500
    """

    num_samples: int = 500
    num_warmup: int = 500
    num_chains: int = 4

    def __post_init__(self) -> None:
        if self.num_samples < FEWEST_DRAWS:
            raise InputError(f"at least {FEWEST_DRAWS} draws per chain", str(self.num_samples), "use num_samples=500")
        if self.num_warmup < 1:
            raise InputError("at least one transition of warm-up", str(self.num_warmup), "use num_warmup=500")
        if self.num_chains < 1:
            raise InputError("at least one chain", str(self.num_chains), "use num_chains=4")


@dataclass(frozen=True)
class Chains:
    """Draws of several Markov chains from the posteriors of N data, and how far they can be trusted.

    The worst of N D coordinates is compared with ``LARGEST_R_HAT``, so this is wider than the 1.01 that is asked of a
    single one: the largest of 512 was 1.009 at 1,400 effective draws, and its excess over 1 goes as one over their
    number, so that at ``SMALLEST_ESS`` about 1.03 comes by chance alone.

    Args:
        names: the names of the D coordinates.
        u: unconstrained draws, shape (chains, draws, N, D).
        r_hat: the largest R-hat over the coordinates of each datum, shape (N,).
        ess: their smallest effective sample size, shape (N,).
        divergences: the divergent transitions after the warm-up; of all data together, as they move together.
        acceptance: the mean acceptance probability after the warm-up, of each chain, shape (chains,).
        step_sizes: as adapted, shape (chains,).
        num_warmup: transitions of each chain that were left out.
        num_gradients: evaluations of the density and its gradient, warm-up included.
        seconds: that it took, compiling included.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target, nuts
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> chains = nuts(Target(Pair(model, MeanField(model)).probe(x), x), num_samples=4, num_warmup=4, num_chains=2)
        >>> chains.is_reference, chains.reasons[-1]
        (False, 'too few effective draws for 4 of 4 data: ..., not 400 or more')
    """

    names: tuple[str, ...]
    u: Float[Tensor, "C S N D"]
    r_hat: Float[Tensor, "N"]
    ess: Float[Tensor, "N"]
    divergences: int
    acceptance: Float[Tensor, "C"]
    step_sizes: Float[Tensor, "C"]
    num_warmup: int
    num_gradients: int
    seconds: float

    @property
    def draws(self) -> Float[Tensor, "CS N D"]:
        """The draws of all chains in one row, shape (S, N, D)."""
        return self.u.flatten(0, 1)

    @property
    def converged(self) -> Bool[Tensor, "N"]:
        """Whether R-hat and effective sample size of each datum are good enough, shape (N,)."""
        return (self.r_hat <= LARGEST_R_HAT) & (self.ess >= SMALLEST_ESS)

    @property
    def usable(self) -> Bool[Tensor, "N"]:
        """Whether the draws of each datum can stand for its posterior, shape (N,): none can where one diverged."""
        return self.converged & (not self.divergences and self.u.shape[0] > 1)

    @property
    def is_reference(self) -> bool:
        """Whether the draws of all data can stand for their posteriors."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons why the draws are not a reference; empty where they are one."""
        total, found = self.u.shape[0] * self.u.shape[1], []
        if self.divergences:
            found.append(f"{self.divergences:,} of {total:,} transitions diverged")
        if self.u.shape[0] < 2:
            found.append("one chain alone cannot show whether it has seen the whole posterior")
        if bad := int((~(self.r_hat <= LARGEST_R_HAT)).sum()):
            found.append(
                f"the chains do not agree on {bad} of {len(self.r_hat)} data: R-hat {self.r_hat.max():.2f}, "
                f"not {LARGEST_R_HAT} or less"
            )
        if bad := int((~(self.ess >= SMALLEST_ESS)).sum()):
            found.append(
                f"too few effective draws for {bad} of {len(self.ess)} data: {self.ess.min():.0f}, "
                f"not {SMALLEST_ESS} or more"
            )
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """The metrics, without the draws."""
        return {
            "num_chains": self.u.shape[0],
            "num_samples": self.u.shape[1],
            "num_warmup": self.num_warmup,
            "num_data": self.u.shape[2],
            "r_hat": self.r_hat.max().item(),
            "ess": self.ess.min().item(),
            "divergences": self.divergences,
            "acceptance": self.acceptance.mean().item(),
            "seconds": self.seconds,
            "is_reference": self.is_reference,
            "reasons": list(self.reasons),
        }


def nuts(
    target: Target,
    num_samples: int = 500,
    num_warmup: int = 500,
    num_chains: int = 4,
    seed: int = 0,
    *,
    target_acceptance: float = 0.65,
) -> Chains:
    """Draw from the posteriors of a target's data by the No-U-Turn sampler, chain after chain.

    Args:
        target: the posteriors; enumerated labels are summed out.
        num_samples: draws of each chain.
        num_warmup: transitions before them, in which step size and mass matrix are adapted.
        num_chains: how many, each with a seed of its own; R-hat needs two.
        seed: the seed of the first chain, the next has the next.
        target_acceptance: the acceptance probability that the step size is adapted to.  In many dimensions 0.65 is the
            most efficient (Beskos et al., *Optimal Tuning of the Hybrid Monte Carlo Algorithm*, 2013): 1.7 times the
            effective draws per gradient of 0.8 on an MNIST ``vae``.  Nearer to 1 is slower and diverges less.

    Raises:
        InputError: if there is nothing to draw, or no continuous latent to draw.
        PyroVAEError: if no prior draw has a finite density.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target, nuts
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> chains = nuts(target, num_samples=4, num_warmup=4, num_chains=2)
        >>> chains.names, chains.draws.shape
        (('z[0]', 'z[1]'), torch.Size([8, 4, 2]))
    """
    Sampling(num_samples, num_warmup, num_chains)  # refuses what cannot be drawn
    _check(target, target_acceptance)
    start = time.perf_counter()
    with target.pair.evaluating(), torch.random.fork_rng(), torch.enable_grad(), pyro.validation_enabled(False):
        runs = num_chains * (num_samples + num_warmup) * ENERGY_JUMPS
        potential = _Potential(target.compiled(1, runs))
        chains = []
        for chain in range(num_chains):
            begin_noise(seed + chain)
            chains.append(_run(_kernel(target, potential, target_acceptance), num_samples, num_warmup))
            logger.info(f"NUTS: chain {chain + 1} of {num_chains} after {time.perf_counter() - start:.0f} s")
    return _together(chains, target.names, num_warmup, potential.calls, time.perf_counter() - start)


@dataclass(frozen=True)
class _Chain:
    u: Tensor  # (draws, N, D)
    divergences: int
    acceptance: float
    step_size: float


class _Potential:
    """Minus the log density of all data, as Pyro's integrator wants it: differentiable, its gradient known already."""

    def __init__(self, run: ValueAndGradient) -> None:
        self.run, self.calls = run, 0

    def __call__(self, params: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        potential: Tensor = _Known.apply(params["u"], self.run)
        return potential


class _Known(torch.autograd.Function):
    """A number and its gradient from one evaluation."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, run: ValueAndGradient) -> Tensor:
        value, gradient = run(u.detach().unsqueeze(0), torch.ones((), device=u.device))
        ctx.save_for_backward(gradient[0])
        return -value.sum()

    @staticmethod
    def backward(ctx: Any, *outside: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return -outside[0] * gradient, None


def _kernel(target: Target, potential: _Potential, target_acceptance: float) -> NUTS:
    kernel = NUTS(potential_fn=potential, target_accept_prob=target_acceptance)
    kernel.mass_matrix_adapter = BlockPerDatum(_first_covariance(target))
    kernel.initial_params = {"u": _start(target)}
    return kernel


def _together(
    chains: Sequence[_Chain], names: tuple[str, ...], num_warmup: int, num_gradients: int, seconds: float
) -> Chains:
    u = torch.stack([chain.u for chain in chains])
    return Chains(
        names=names,
        u=u,
        r_hat=r_hat(u).amax(-1),
        ess=bulk_ess(u).amin(-1),
        divergences=sum(chain.divergences for chain in chains),
        acceptance=torch.tensor([chain.acceptance for chain in chains]),
        step_sizes=torch.tensor([chain.step_size for chain in chains]),
        num_warmup=num_warmup,
        num_gradients=num_gradients,
        seconds=seconds,
    )


def _first_covariance(target: Target) -> Tensor:
    """The covariance of the guide's draws, or the identity for a datum where the guide has none, shape (N, D, D)."""
    covariance = shrunk_covariance(target.draw(GUIDE_DRAWS).u)
    usable = covariance.flatten(1).isfinite().all(-1) & (covariance.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
    unit = torch.eye(target.size, dtype=covariance.dtype, device=covariance.device)
    return torch.where(usable[:, None, None], covariance, unit)


def _start(target: Target) -> Tensor:
    """A draw from the prior that the data do not rule out, shape (N, D)."""
    u = target.draw_prior(1)
    for _ in range(STARTS):
        value, gradient = target.value_and_gradient(u)
        bad = ~(value.isfinite() & gradient.isfinite().all(-1))
        if not bad.any():
            return u[0]
        u = torch.where(bad.unsqueeze(-1), target.draw_prior(1), u)
    raise PyroVAEError(f"none of {STARTS} draws from the prior has a finite density and gradient for every datum")


def _run(kernel: NUTS, num_samples: int, num_warmup: int) -> _Chain:
    """One chain.  The kernel is driven here, as Pyro's MCMC would put a handler around its every draw of a number."""
    kernel.setup(num_warmup)
    params = kernel.initial_params
    for _ in range(num_warmup):
        params = kernel.sample(params)
    draws = []
    for _ in range(num_samples):
        params = kernel.sample(params)
        draws.append(params["u"].detach().clone())
    step_size, acceptance = kernel.step_size, float(kernel.logging()["acc. prob"])
    divergences = len(kernel.diagnostics()["divergences"])
    kernel.cleanup()
    return _Chain(torch.stack(draws), divergences, acceptance, step_size)


def _check(target: Target, target_acceptance: float) -> None:
    if not 0 < target_acceptance < 1:
        raise InputError("a target acceptance between 0 and 1", str(target_acceptance), "use target_acceptance=0.65")
    if target.size == 0:
        raise InputError(
            "a model with a continuous latent site",
            "one whose latent sites are all enumerated",
            "sum over them: NUTS draws continuous latents alone",
        )
    if not target.num_data:
        raise InputError("at least one datum", "none", "choose some rows of x")

r"""The best member of a variational family for each datum: q*_n = argmax_q E_q[log p(x_n, z) - log q(z)].

The ELBO of all data is raised by Adam on the parameters of each datum; the weights of model and guide stay as they are.
Every step draws anew, so the mean ELBO over a round of steps is an unbiased estimate of it, and is compared with the
best of the rounds before.  Where it rose by less than a tolerance the step size is lowered, and where that was done
three times the search has converged.  The answer is the average of the parameters over the last round, which has less
of the noise of the gradients than any one of them (Polyak and Juditsky, *Acceleration of Stochastic Approximation by
Averaging*, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.compiled.payoff import compile_if_it_pays
from pyro_vae.compiled.replay import Replay, replayed
from pyro_vae.diagnostics.local_families import LocalFamily
from pyro_vae.errors import InputError

LR_FACTOR = 0.3  # the step size, by this factor
MAX_LR_CUTS = 3


@dataclass(frozen=True)
class Refinement:
    """The settings of the search for the best q of each datum.

    Args:
        num_samples: draws per datum and step.
        max_steps: where the search ends at the latest.
        round_steps: steps per round.
        lr: Adam's step size at first.
        tolerance: the least rise of the mean ELBO in a round that counts as one, nats per datum.

    Raises:
        InputError: if a number is not positive.

    Example:
        >>> from pyro_vae.diagnostics import Refinement
        >>> Refinement(max_steps=200, round_steps=50).num_samples
        8
    """

    num_samples: int = 8
    max_steps: int = 2000
    round_steps: int = 100
    lr: float = 0.03
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        numbers = (self.num_samples, self.max_steps, self.round_steps, self.lr, self.tolerance)
        if min(numbers) <= 0:
            raise InputError("positive numbers to refine by", str(self), "use Refinement()")


@dataclass(frozen=True)
class Refined:
    """The end of a search.

    Args:
        parameters: the parameters of the best member for each datum, as the family takes them.
        trace: the mean ELBO of each round, nats per datum, of the data where it was finite.
        steps: taken.
        converged: whether the ELBO had stopped rising; otherwise the steps ran out.
    """

    parameters: list[Tensor]
    trace: tuple[float, ...]
    steps: int
    converged: bool


def refine(family: LocalFamily, refinement: Refinement) -> Refined:
    """Search the best member for each datum, by the global random state.

    Args:
        family: where to search, and where to start.
        refinement: how.
    """
    parameters = [start.clone() for start in family.start]
    draw = ascent(family, parameters, refinement)
    adam = torch.optim.Adam(parameters, lr=refinement.lr)
    trace: list[float] = []
    steps, lowered, average = 0, 0, parameters
    while lowered < MAX_LR_CUTS and steps < refinement.max_steps:
        count = min(refinement.round_steps, refinement.max_steps - steps)
        total, average = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
        for _ in range(count):
            value, found = draw()
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = -gradient.nan_to_num(0.0, 0.0, 0.0)
            adam.step()
            total += value[value.isfinite()].mean().item() / count
            for mean, parameter in zip(average, parameters, strict=True):
                mean.add_(parameter, alpha=1 / count)
        steps += count
        if trace and not total > max(trace) + refinement.tolerance:
            lowered += 1
            for group in adam.param_groups:
                group["lr"] *= LR_FACTOR
        trace.append(total)
    return Refined(average, tuple(trace), steps, lowered == MAX_LR_CUTS)


def ascent(
    family: LocalFamily, parameters: list[Tensor], refinement: Refinement
) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """What the search climbs, compiled where that pays.

    Args:
        family: where to search.
        parameters: read, as they are, at each call.
        refinement: how.

    Returns:
        A function that gives the ELBO, shape (N,), and its gradients in the parameters, by fresh draws.
    """

    def bound_and_gradients() -> dict[str, Tensor]:
        with torch.enable_grad():
            leaves = [parameter.detach().requires_grad_() for parameter in parameters]
            bound = family.bound(leaves, refinement.num_samples)
            found = torch.autograd.grad(bound.sum(), leaves, allow_unused=True)
        used = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        return {"bound": bound.detach()} | {str(i): gradient for i, gradient in enumerate(used)}

    runs = refinement.max_steps // 2
    replay, _ = compile_if_it_pays("refinement", lambda: Replay(bound_and_gradients, parameters), runs)

    def run() -> tuple[Tensor, list[Tensor]]:
        bound, *found = replayed(replay, parameters, bound_and_gradients).values()
        return bound, found

    return run

r"""Fitting a guide to a fixed model on chosen data.

Only the guide's parameters train, on all the data at once, so that what is left of the gap is the family's and not the
amortization's.  The gradient passes through the draws alone where the guide's density is known everywhere (*sticking
the landing*, see ``objectives.paths``): it vanishes at an exact guide, which can therefore be reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_vae.compiled.payoff import compile_if_it_pays
from pyro_vae.compiled.replay import Replay, replayed
from pyro_vae.errors import InputError, TrainingError
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs.pair import Pair, ProbedPair
from pyro_vae.pairs.seeding import seeded
from pyro_vae.training.step import expected_warnings

NUM_DRAWS = 16
CLIP_NORM = 50.0


def fit_guide(probed: ProbedPair, x: Tensor, num_steps: int = 2000, lr: float = 5e-3, seed: int = 0) -> None:
    r"""Raise the ELBO of some data in the guide's parameters by Adam, the rate falling to 0 along a cosine.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        num_steps: how many.
        lr: the first rate.
        seed: the seed of the draws.

    Raises:
        TrainingError: if the bound is no longer a number.
    """
    parameters = _guide_parameters(probed.pair, x)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / num_steps)) / 2)
    with seeded(seed), pyro.validation_enabled(False), expected_warnings(), probed.pair.scope():
        descent = _descent(_loss(probed, x), parameters, num_steps)
        for step in range(num_steps):
            for parameter, gradient in zip(parameters, descent(), strict=True):
                parameter.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            if not norm.isfinite():
                raise TrainingError(f"the gradient became {norm:g} in step {step + 1}", "try a smaller rate")
            optimizer.step()
            schedule.step()
    for parameter in parameters:
        parameter.grad = None


def _descent(loss: Callable[[], Tensor], parameters: list[Tensor], runs: int) -> Callable[[], Sequence[Tensor | None]]:
    """What gives the gradients of a loss in some parameters, as they are at each call; compiled where that pays."""
    with torch.random.fork_rng(), torch.no_grad():
        loss()  # what a first call makes is no part of what is recorded

    def gradients() -> dict[str, Tensor]:
        with torch.enable_grad():
            found = torch.autograd.grad(loss(), parameters, allow_unused=True)
        return {str(i): gradient for i, gradient in enumerate(found) if gradient is not None}

    replay, _ = compile_if_it_pays("fit of a guide", lambda: Replay(gradients, parameters), runs)

    def run() -> Sequence[Tensor | None]:
        found = replayed(replay, parameters, gradients)
        return [found.get(str(i)) for i in range(len(parameters))]

    return run


def _guide_parameters(pair: Pair, x: Tensor) -> list[Tensor]:
    """The parameters that the guide uses and the model does not."""
    with pair.scope(), torch.no_grad(), torch.random.fork_rng():
        of_model = poutine.trace(pair.model, param_only=True).get_trace(*pair.arguments(x, None))
    held = {id(parameter) for parameter in of_model.nodes.values()} | set(of_model.nodes)
    held |= {id(parameter) for parameter in getattr(pair.model, "parameters", list)()}
    return [p for name, p in pair.parameters().items() if name not in held and id(p) not in held and p.requires_grad]


def _loss(probed: ProbedPair, x: Tensor) -> Callable[[], Tensor]:
    """Minus the ELBO, nats per datum."""
    try:
        objective = OBJECTIVES.build(f"stl:num_samples={NUM_DRAWS}", probed=probed)
    except InputError:  # a family or a program for which Pyro's own estimator is there
        kind = TraceEnum_ELBO if probed.sums else Trace_ELBO
        elbo: Any = kind(num_particles=NUM_DRAWS, vectorize_particles=True, max_plate_nesting=probed.nesting)
        return lambda: (
            elbo.differentiable_loss(probed.pair.model, probed.pair.guide, *probed.pair.arguments(x, None)) / len(x)
        )
    return lambda: objective(x)

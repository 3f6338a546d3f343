r"""Data drawn from the model together with the latents that made them, and the guide's draws for these data.

A datum (z, x) is drawn from p(z) p(x | z) by running the model with nothing observed.  Then z is a draw from the exact
posterior p(z | x), so z and L draws from an exact guide q(z | x) are L + 1 exchangeable vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.pairs.handlers import unconditioned
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.observations import assemble, check_generates
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, value_at
from pyro_vae.posterior.target import Target


def simulate(probed: ProbedPair, template: Tensor) -> tuple[Target, Tensor]:
    r"""Draw latents and data from the model, labels with them, by the global random state.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        template: shape (N, \*event_shape): how many data of what shape; a conditional model reads its part of them.

    Returns:
        The posterior of the data that were drawn, and the latents that made them: unconstrained, shape (N, D), or
        (1, D) where a latent site lies outside the plate over data.

    Raises:
        InputError: if the model cannot generate data of that shape.
    """
    with torch.no_grad(), poutine.block(), probed.pair.scope():
        program = unconditioned(probed.pair.model)
        trace = prune_subsample_sites(poutine.trace(program).get_trace(*probed.pair.arguments(template, None)))
    target = Target(probed, _generated(probed, trace, template))
    return target, target.free(trace)[0]


def posterior_and_truth(
    probed: ProbedPair, x: Tensor, num_data: int, num_draws: int
) -> Iterator[tuple[Target, Tensor, Iterator[Tensor]]]:
    r"""Simulate data, a few at a time, by the global random state.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: templates, shape (N, \*event_shape), used over and over where more data are wanted.  Programs with a latent
            outside the plate over data generate all N together, and that is one datum here.
        num_data: M, how many to simulate.
        num_draws: L, the draws from the guide for each.

    Yields:
        The posterior of n simulated data, their latents, shape (n, D), and the guide's draws as parts of shape
        (s, n, D) with L in total.
    """
    numbers = probed.widest(x)
    if probed.data_dim is None:
        templates: Iterator[Tensor] = iter([x] * num_data)
        numbers *= len(x)
    else:
        rows = x[torch.arange(num_data, device=x.device) % len(x)]
        templates = iter(rows.split(at_once(numbers)))
    for template in templates:
        target, truth = simulate(probed, template)
        size = at_once(numbers * target.num_data)
        counts = [min(size, num_draws - start) for start in range(0, num_draws, size)]
        yield target, truth, (target.draw(count).u for count in counts)


def _generated(probed: ProbedPair, trace: Trace, template: Tensor) -> Tensor:
    """The data that an unconditioned run made, in the shape of the template."""
    check_generates(probed, template[0].numel())
    x = assemble(probed, template, lambda name: (value_at(trace, name), distribution_at(trace, name).event_dim))
    return x.to(template.dtype)

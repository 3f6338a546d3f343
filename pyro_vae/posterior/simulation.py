r"""Data drawn from the model together with the latents that made them, and the guide's draws for these data.

A datum (z, x) is drawn from p(z) p(x | z) by running the model with nothing observed.  Then z is a draw from the exact
posterior p(z | x), so z and L draws from an exact guide q(z | x) are L + 1 exchangeable vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import OBSERVED_SITE
from pyro_vae.pairs.traces import value_at
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
        program = poutine.uncondition(probed.pair.model)
        trace = prune_subsample_sites(poutine.trace(program).get_trace(*probed.pair.arguments(template, None)))
    target = Target(probed, _generated(trace, template))
    return target, _unconstrained(trace, target)


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


def _generated(trace: Trace, template: Tensor) -> Tensor:
    """The data that an unconditioned run made, in the shape of the template."""
    observed = {n: site for n, site in trace.nodes.items() if (site.get("infer") or {}).get("was_observed")}
    factors = [name for name, site in observed.items() if isinstance(site["fn"], pyro.distributions.Unit)]
    name = OBSERVED_SITE if OBSERVED_SITE in observed else next(iter(observed), None)
    mend = 'observe x at one site: pyro.sample("x", …, obs=x)'
    if factors:
        raise InputError("a model that generates its data", f"the factor {factors[0]!r} in it", mend)
    if name is None or (name != OBSERVED_SITE and len(observed) > 1):
        raise InputError("a model that observes its data at one site", f"sites {list(observed)}", mend)
    x = value_at(trace, name).detach()
    if x.shape != template.shape and (x.shape[:1] != template.shape[:1] or x.numel() != template.numel()):
        raise InputError(
            f"the model to generate {tuple(template.shape)} at {name!r}",
            f"shape {tuple(x.shape)}",
            "observe x in its own order",
        )
    return x.reshape(template.shape).to(template.dtype)


def _unconstrained(trace: Trace, target: Target) -> Tensor:
    """The continuous latents of a run without draws or labels in parallel, shape (N, D)."""
    nesting, data_dim = target.probed.nesting, target.probed.data_dim
    found = [torch.zeros(target.num_data, 0, device=target.x.device)]
    for site in target.sites:
        free = site.transform.inv(value_at(trace, site.name))
        batch = free.dim() - len(site.free_shape)
        free = free.reshape((1,) * (nesting - batch) + free.shape)
        free = free.unsqueeze(0) if data_dim is None else free.movedim(nesting + data_dim, 0)
        found.append(free.reshape(target.num_data, -1))
    return torch.cat(found, -1)

r"""What a model generates: from its prior, or given latents of the posterior of chosen data.

All draws are made in one vectorized run for as many as memory allows, in the layout of ``Target.values``: draws first,
then data, then the other plates of the site from left to right, then its event dimensions.  Enumerated sites that are
not given are drawn from p(e | z, x), exactly, by enumeration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.infer import config_enumerate, infer_discrete
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.structure import LABEL_SITE
from pyro_vae.pairs.traces import distribution_at, unscaled_log_prob_at, value_at
from pyro_vae.pairs.vectorized import run, samples_plate
from pyro_vae.posterior.target import Target


@dataclass(frozen=True)
class ModelSite:
    """A site of the model as one run over the data has it.

    Args:
        name: the sample site.
        plates: the names of its plates but the data's, from left to right, those of one row left out.
        batch: the sizes of all its plates, padded to the nesting of the program.
        event_shape: the event shape of a value.
        data_axis: where in ``batch`` the data lie, None where all data are one.
        is_observed: whether it is data that a model generates; a label that was given is none.
    """

    name: str
    plates: tuple[str, ...]
    batch: tuple[int, ...]
    event_shape: tuple[int, ...]
    data_axis: int | None
    is_observed: bool

    def rows(self, value: Tensor, num_samples: int, num_data: int) -> Tensor:
        r"""A value from a vectorized run as (S, N, \*plates, \*event_shape)."""
        events = len(self.event_shape)
        value = value.reshape((1,) * (1 + len(self.batch) + events - value.dim()) + value.shape)
        value = value.expand(num_samples, *self.batch, *self.event_shape)
        value = value.unsqueeze(1) if self.data_axis is None else value.movedim(1 + self.data_axis, 1)
        sizes = [size for axis, size in enumerate(self.batch) if axis != self.data_axis and size > 1]
        return value.reshape(num_samples, num_data, *sizes, *self.event_shape)

    def laid_out(self, rows: Tensor) -> Tensor:
        r"""The inverse: (S, N, \*plates, \*event_shape) as a vectorized run has the site."""
        if self.data_axis is None:
            return rows.reshape(len(rows), *self.batch, *self.event_shape)
        others = [size for axis, size in enumerate(self.batch) if axis != self.data_axis]
        moved = rows.reshape(len(rows), rows.shape[1], *others, *self.event_shape)
        return moved.movedim(1, 1 + self.data_axis)


def model_sites(target: Target) -> dict[str, ModelSite]:
    """The sites of a target's model, in order, without factors and deterministic values, which Pyro files as observed.

    Looking leaves the random state alone.
    """
    pair = target.pair
    with torch.no_grad(), torch.random.fork_rng(), poutine.block(), pair.evaluating(), pair.scope():
        trace = poutine.trace(pair.model).get_trace(*pair.arguments(target.x, target.y))
    trace = prune_subsample_sites(trace)
    names = [*trace.stochastic_nodes, *trace.observation_nodes]
    return {name: _site(target, trace, name) for name in names if not _is_bookkeeping(trace, name)}


def generate(
    target: Target,
    wanted: Iterable[str],
    given: Mapping[str, Tensor] | None = None,
    num_samples: int = 1,
) -> dict[str, Tensor]:
    r"""Values of sites from runs of the model, shape (S, N, \*plates, \*event_shape), without gradients.

    Args:
        target: the model and the data whose shape is generated; conditional models read their visible part.
        wanted: the sites whose values are returned; observed ones are generated anew.
        given: values of latent sites, shape (S, N, …) as ``Target.values`` has them; others are drawn.
        num_samples: S, where nothing is given.
    """
    sites, names = model_sites(target), list(wanted)

    def part(given: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        trace = _run(target, _laid_out(sites, given), count, anew=True)
        return {n: sites[n].rows(value_at(trace, n), count, target.num_data) for n in names}

    return _in_parts(target, sites, part, given or {}, num_samples)


def observed_values(target: Target) -> dict[str, Tensor]:
    r"""The data as the model sees them, by site, shape (N, \*plates, \*event_shape)."""
    sites = {name: site for name, site in model_sites(target).items() if site.is_observed}
    with torch.no_grad(), torch.random.fork_rng(), poutine.block(), target.pair.evaluating(), target.pair.scope():
        trace = _run(target, {}, 1, anew=False)
    return {name: site.rows(value_at(trace, name), 1, target.num_data)[0] for name, site in sites.items()}


def draw_enumerated(target: Target, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The enumerated sites drawn from p(e | z, x), shape (S, N).

    Args:
        target: the posterior.
        given: the values of all continuous sites, as ``Target.values`` has them.
    """
    sites, nesting = model_sites(target), target.probed.nesting
    names = [name for name in target.probed.enumerated if name in sites]

    def part(given: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        def program(*arguments: Any) -> None:
            with samples_plate(target.probed, count):
                poutine.condition(target.pair.model, data=_laid_out(sites, given))(*arguments)

        drawn = infer_discrete(config_enumerate(program), first_available_dim=-nesting - 2, temperature=1)
        trace = poutine.trace(drawn).get_trace(*target.pair.arguments(target.x, target.y))
        return {name: sites[name].rows(value_at(trace, name), count, target.num_data) for name in names}

    return _in_parts(target, sites, part, given) if names else {}


def log_likelihood(target: Target, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Log p(x | z) of each observed value, nats, shape (S, N, \*plates).

    Args:
        target: the posterior.
        given: values of all latent sites, as ``Target.values`` has them.
    """
    sites = model_sites(target)
    scalars = {name: replace(site, event_shape=()) for name, site in sites.items() if site.is_observed}

    def part(given: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        trace = _run(target, _laid_out(sites, given), count, anew=False)
        trace.compute_log_prob(lambda name, _: name in scalars)
        return {n: s.rows(unscaled_log_prob_at(trace, n), count, target.num_data) for n, s in scalars.items()}

    return _in_parts(target, sites, part, given)


def _in_parts(
    target: Target,
    sites: dict[str, ModelSite],
    run: Callable[[dict[str, Tensor], int], dict[str, Tensor]],
    given: Mapping[str, Tensor],
    num_samples: int = 1,
) -> dict[str, Tensor]:
    """What a run of ``count`` draws gives, for all draws, as many at a time as memory allows."""
    num_samples = len(next(iter(given.values()))) if given else num_samples
    width = target.probed.combinations * max(math.prod(s.batch + s.event_shape) for s in sites.values())
    step = at_once(width)
    parts = []
    with torch.no_grad(), poutine.block(), target.pair.evaluating(), target.pair.scope():
        for start in range(0, num_samples, step):
            count = min(step, num_samples - start)
            parts.append(run({name: value[start : start + count] for name, value in given.items()}, count))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _laid_out(sites: dict[str, ModelSite], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: sites[name].laid_out(value) for name, value in given.items() if name in sites}


def _run(target: Target, fixed: dict[str, Tensor], num_samples: int, anew: bool) -> Trace:
    """The model, vectorized over draws, some of its sites fixed; its data drawn anew or not."""
    program = poutine.uncondition(target.pair.model) if anew else target.pair.model
    if anew and target.y is not None:
        fixed = fixed | {LABEL_SITE: target.y}
    conditioned = poutine.condition(program, data=fixed)
    return run(conditioned, target.probed, target.x, target.y, num_samples)


def _site(target: Target, trace: Trace, name: str) -> ModelSite:
    d, value, structure = distribution_at(trace, name), value_at(trace, name), target.probed
    events = value.dim() - d.event_dim
    batch = (1,) * (structure.nesting - events) + tuple(value.shape[:events])
    data_axis = None if structure.data_dim is None else structure.nesting + structure.data_dim
    frames = {frame.dim: frame.name for frame in trace.nodes[name]["cond_indep_stack"] if frame.vectorized}
    axes = [axis for axis, size in enumerate(batch) if axis != data_axis and size > 1]
    return ModelSite(
        name,
        tuple(frames.get(axis - structure.nesting, f"{name}_plate_{axis}") for axis in axes),
        batch,
        tuple(value.shape[events:]),
        data_axis,
        name in trace.observation_nodes and not (name == LABEL_SITE and target.y is not None),
    )


def _is_bookkeeping(trace: Trace, name: str) -> bool:
    """Whether a site is a factor or a deterministic value."""
    d = trace.nodes[name]["fn"]
    while hasattr(d, "base_dist"):  # masks and plates wrap a distribution
        d = d.base_dist
    return isinstance(d, Unit) or bool((trace.nodes[name]["infer"] or {}).get("_deterministic"))

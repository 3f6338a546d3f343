r"""What a model generates: from its prior, or given latents of the posterior of chosen data.

All draws are made in one vectorized run for as many as memory allows, in the layout of ``Target.values``: draws first,
then data, then the other plates of the site from left to right, then its event dimensions.  Enumerated sites that are
not given are drawn from p(e | z, x), exactly, by enumeration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate, infer_discrete
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.pairs.classes import LABEL_SITE
from pyro_vae.pairs.handlers import AsCategories, unconditioned, unscaled
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, is_bookkeeping, log_prob_at, value_at
from pyro_vae.pairs.vectorized import run, samples_plate
from pyro_vae.posterior.target import Target

# From a target, values of sites as a run has them and the number of draws, None for one without a plate, to a trace.
_Program = Callable[[Target, dict[str, Tensor], int | None], Trace]


@dataclass(frozen=True)
class ModelSite:
    """A site of the model as one run over the data has it.

    Args:
        name: the sample site.
        plates: the names of its plates but the data's, from left to right, those of one row left out.
        batch: the sizes of all its plates, padded to the nesting of the program.
        event_shape: the event shape of a value.
        data_axis: where in ``batch`` the data lie, None where all data are one.
        is_observed: whether it is data that a model generates; a label that was given is not.
        shape: the shape of its value in that run.
    """

    name: str
    plates: tuple[str, ...]
    batch: tuple[int, ...]
    event_shape: tuple[int, ...]
    data_axis: int | None
    is_observed: bool
    shape: tuple[int, ...]

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

    def of_one_draw(self, rows: Tensor) -> Tensor:
        r"""One draw of (N, \*plates, \*event_shape) as a run without a plate over draws has the site."""
        return self.laid_out(rows.unsqueeze(0)).reshape(self.shape)


def model_sites(target: Target) -> dict[str, ModelSite]:
    """The sites of a target's model, in order, without factors and deterministic values, which Pyro files as observed.

    Looking leaves the random state alone.
    """
    pair = target.pair
    with torch.no_grad(), torch.random.fork_rng(), poutine.block(), pair.evaluating(), pair.scope():
        trace = poutine.trace(pair.model).get_trace(*pair.arguments(target.x, target.y))
    trace = prune_subsample_sites(trace)
    names = [*trace.stochastic_nodes, *trace.observation_nodes]
    return {name: _site(target, trace, name) for name in names if not is_bookkeeping(trace, name)}


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
    names = list(wanted)

    def program(target: Target, given: dict[str, Tensor], count: int | None) -> Trace:
        return _run(target, given, count, anew=True)

    return _of_all_draws(target, "run of the model", program, names, given or {}, num_samples)


def observed_values(target: Target) -> dict[str, Tensor]:
    r"""The data as the model sees them, by site, shape (N, \*plates, \*event_shape)."""
    sites = {name: site for name, site in model_sites(target).items() if site.is_observed}
    with torch.no_grad(), torch.random.fork_rng(), poutine.block(), target.pair.evaluating(), target.pair.scope():
        trace = _run(target, {}, None, anew=False)
    return {name: site.rows(value_at(trace, name), 1, target.num_data)[0] for name, site in sites.items()}


def draw_enumerated(target: Target, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sites that are summed over, in the guide or in the model, drawn from p(e | z, x), shape (S, N, …).

    Args:
        target: the posterior.
        given: the values of all continuous sites, as ``Target.values`` has them, and those of sites that are known.
    """
    sites, summed = model_sites(target), (*target.probed.enumerated, *target.probed.marginal)
    names = [name for name in summed if name in sites and name not in given]

    def program(target: Target, given: dict[str, Tensor], count: int | None) -> Trace:
        def model(*arguments: Any) -> None:
            with samples_plate(target.probed, count):
                poutine.condition(target.pair.model, data=given)(*arguments)

        return _infer_discrete(model, target.probed, target.pair.arguments(target.x, target.y))

    return _of_all_draws(target, "draw of what is summed out", program, names, given) if names else {}


def draw_marginal(probed: ProbedPair, x: Tensor, latent: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""The sites that the model sums out, drawn from p(e | z, x), in a run without other draws.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        latent: the values of the other latent sites in such a run.
    """
    if not probed.marginal:
        return {}
    program = poutine.condition(probed.pair.model, data=dict(latent))
    trace = _infer_discrete(program, probed, probed.pair.arguments(x, None))
    return {name: value_at(trace, name) for name in probed.marginal}


def _infer_discrete(program: Callable[..., Any], probed: ProbedPair, arguments: tuple[Any, ...]) -> Trace:
    categories = AsCategories()
    with unscaled():
        drawn = infer_discrete(
            config_enumerate(categories(program)), first_available_dim=-probed.nesting - 2, temperature=1
        )
        return categories.restored(poutine.trace(drawn).get_trace(*arguments))


def log_likelihood(target: Target, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Log p(x | z) of each observed value, nats, shape (S, N, \*plates).

    Args:
        target: the posterior.
        given: values of all latent sites, as ``Target.values`` has them.
    """
    names = [name for name, site in model_sites(target).items() if site.is_observed]

    def program(target: Target, given: dict[str, Tensor], count: int | None) -> Trace:
        trace = _run(target, given, count, anew=False)
        trace.compute_log_prob(lambda name, _: name in names)
        return trace

    return _of_all_draws(target, "likelihood", program, names, given, log_probs=True)


def _of_all_draws(
    target: Target,
    what: str,
    program: _Program,
    names: Sequence[str],
    given: Mapping[str, Tensor],
    num_samples: int = 1,
    log_probs: bool = False,
) -> dict[str, Tensor]:
    """What runs of a program say of some sites, for all draws, as many at a time as memory and the program allow.

    Args:
        target: the posterior.
        what: they give, for a person.
        program: see ``_Program``.
        names: the sites that are wanted.
        given: values of sites, shape (S, N, …).
        num_samples: S, where nothing is given.
        log_probs: whether log-probabilities are wanted instead of values.
    """
    num_samples, sites = len(next(iter(given.values()))) if given else num_samples, model_sites(target)
    known = {name: value for name, value in given.items() if name in sites}
    runs = _Runs(target, program, names, sites, log_probs)
    with torch.no_grad(), poutine.block(), target.pair.evaluating(), target.pair.scope():
        if target.placing == "alone":
            rows = list(zip(*(value.split(1) for value in known.values()), strict=True)) or [()] * num_samples
            what = f"{what}, {', '.join(names)} given {', '.join(known)}"
            parts = target.in_a_row(what, lambda *one: runs.alone(dict(zip(known, one, strict=True))), rows)
        else:
            of_some = runs.side_by_side if target.placing == "beside" else runs.as_rows
            step = at_once(target.probed.combinations * max(math.prod(s.batch + s.event_shape) for s in sites.values()))
            parts = [
                of_some({n: v[start : start + step] for n, v in known.items()}, min(step, num_samples - start))
                for start in range(0, num_samples, step)
            ]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


@dataclass(frozen=True)
class _Runs:
    """Runs of a program for some draws, in each of the ways that they can lie; arguments as ``_of_all_draws``."""

    target: Target
    program: _Program
    names: Sequence[str]
    sites: dict[str, ModelSite]
    log_probs: bool

    def side_by_side(self, some: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        laid_out = {name: self.sites[name].laid_out(value) for name, value in some.items()}
        return self._rows(self.program(self.target, laid_out, count), count)

    def as_rows(self, some: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        wide = self.target.on_rows(count) if count > 1 else self.target
        found = replace(self, target=wide, sites=model_sites(wide)).alone(some)
        return {name: value[0].unflatten(0, (count, -1)) for name, value in found.items()}

    def alone(self, one: dict[str, Tensor]) -> dict[str, Tensor]:
        laid_out = {name: self.sites[name].of_one_draw(value.flatten(0, 1)) for name, value in one.items()}
        return self._rows(self.program(self.target, laid_out, None), 1)

    def _rows(self, trace: Trace, count: int) -> dict[str, Tensor]:
        num_data = self.target.num_data
        if self.log_probs:
            scalars = {name: replace(self.sites[name], event_shape=()) for name in self.names}
            return {n: scalars[n].rows(log_prob_at(trace, n), count, num_data) for n in self.names}
        return {n: self.sites[n].rows(value_at(trace, n), count, num_data) for n in self.names}


def _run(target: Target, fixed: dict[str, Tensor], num_samples: int | None, anew: bool) -> Trace:
    """The model, vectorized over draws, some of its sites fixed; its data drawn anew or not."""
    program = unconditioned(target.pair.model) if anew else target.pair.model
    if anew and target.y is not None:
        classes = target.probed.classes
        fixed = fixed | {LABEL_SITE: target.y if classes is None else classes.to(target.y.device)[target.y]}
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
        tuple(value.shape),
    )

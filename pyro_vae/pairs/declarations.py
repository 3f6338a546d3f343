r"""What a model says of its latent sites when it is alone, read off its runs: enough to write a guide for it.

A site is *local* if a plate over data stands around it, one that has as many entries as there are rows; the others are
*shared* by all rows.  Which sites the posterior of one depends on follows from which sites the density of each depends
on in the model, which Pyro tracks, by eliminating one site after another (Webb et al., *Faithful Inversion of
Generative Models for Effective Amortized Inference*, 2018): what a site leaves behind, its neighbours in the graph of
which every factor's sites are joined, is what it is given, and they are joined in their turn.

Continuous local sites that are there at each step of the data, z_1, …, z_T, are a *chain*: visited last and forwards in
time, so that each is given the step before it where the model is a Markov chain, all steps before it where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.inspect import get_dependencies
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.errors import InputError
from pyro_vae.pairs.probing import PROPER, cannot_be_drawn, check_takes_every_row, other_rows, said
from pyro_vae.pairs.reach import modules_of
from pyro_vae.pairs.series import Series, find_series
from pyro_vae.pairs.structure import enumerates, vectorized_frames
from pyro_vae.pairs.traces import distribution_at, is_bookkeeping, num_values, support_of, value_at

NUM_RUNS = 15  # of the model, whose values a shared site begins at


@dataclass(frozen=True)
class DeclaredSite:
    r"""A latent site of a model.

    Args:
        name: of the site.
        plates: the vectorized plates around it.
        batch_shape: of its value in the run that was looked at.
        event_shape: of its value.
        support: the values that it can take.
        cardinality: how many these are, if its value is one number of few; None of any other.
        local: whether a plate over data is among its plates.
        given: the latent sites that its posterior depends on, given those.
        sees_data: whether it depends on data even so.
        draws: its values in some runs of the model.
    """

    name: str
    plates: tuple[CondIndepStackFrame, ...]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    support: constraints.Constraint
    cardinality: int | None
    local: bool
    given: tuple[str, ...]
    sees_data: bool
    draws: Tensor

    @property
    def is_discrete(self) -> bool:
        """Whether its values can be counted."""
        return bool(self.support.is_discrete)


@dataclass(frozen=True)
class Chain:
    """Continuous sites that are there at each step of the data.

    Args:
        series: the names of those of one kind, in the order of the model within a step.
        sites: of each series that of the first step, with the draws of all.
        given: the sites outside of the chain that it depends on.
        markov: whether a step depends on no earlier one than that before it, given all the data.
    """

    series: tuple[Series, ...]
    sites: tuple[DeclaredSite, ...]
    given: tuple[str, ...]
    markov: bool


@dataclass(frozen=True)
class Declarations:
    """The latent sites of a model, shared ones first, each after those that it is given.

    Args:
        sites: the sites outside of the chain.
        data_plates: the names of the plates over data.
        data_dim: their dimension; None without one.
        rows: how many entries they had; None without one.
        nesting: how deep the plates of the latent sites are nested.
        chain: the sites that are there at each step, visited after all others; None without any.
    """

    sites: tuple[DeclaredSite, ...]
    data_plates: tuple[str, ...]
    data_dim: int | None
    rows: int | None
    nesting: int
    chain: Chain | None = None

    @property
    def every(self) -> tuple[DeclaredSite, ...]:
        """All sites, of a chain those of the first step."""
        return self.sites + (self.chain.sites if self.chain else ())


def declarations(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    sizes: Sequence[int],
    data_plate: str | None = None,
    rows_first: bool = False,
    discrete_first: bool = True,
) -> Declarations:
    """Run a model several times and say what its latent sites are; its parameters and noise are left alone.

    Args:
        model: a Pyro program.
        args: what it is called with, data too.
        sizes: of the data; those of the first dimension that a plate around latent sites has are the rows.
        data_plate: the plate over data; None: whichever has as many entries as there are rows.
        rows_first: whether rows are the first dimension of the data in any case.
        discrete_first: whether discrete sites of a row are visited before its continuous ones.

    Raises:
        InputError: if the model has no latent site that a guide could sample, rows that no plate says are independent,
            or several plates that may be the one over data.
    """
    with looking(model):
        traces = [_trace(model, args) for _ in range(NUM_RUNS)]
        graph = _graph(model, args, traces[0])
        other = _on_other_rows(model, args, sizes[0]) if sizes else None
    trace = traces[0]
    latents = [name for name in trace.stochastic_nodes if enumerates(trace, name) != "parallel"]
    _check_latents(trace, latents)
    plates, dim, rows = _plates_over_data(trace, latents, sizes[:1] if rows_first else sizes, data_plate)
    local = [name for name in latents if any(frame.name in plates for frame in vectorized_frames(trace.nodes[name]))]
    if other is not None:
        _check_shared(trace, other, [name for name in latents if name not in local])
    series = _chain_of(trace, local, [size for size in sizes[:2] if size != rows])
    steps = [name for step in zip(*(one.names for one in series), strict=True) for name in step]
    first = [name for name in local if discrete_first and _support(trace, name).is_discrete]
    order = [*_order(latents, local, first, steps), *steps]
    given = invert(graph, order, [name for name in trace.stochastic_nodes if name not in latents])
    sites = {name: _site(traces, name, name in local, given[name]) for name in order}
    nesting = max((-(frame.dim or 0) for site in sites.values() for frame in site.plates), default=0)
    chain = _chain(series, steps, sites) if series else None
    alone = tuple(site for name, site in sites.items() if name not in steps)
    return Declarations(alone, plates, dim, rows, nesting, chain)


@contextmanager
def looking(program: Callable[..., Any]) -> Iterator[None]:
    """Within it a program can be run without a trace of it: in parameters, buffers, noise, gradients, or handlers."""
    own = pyro.get_param_store().scope()  # for parameters that a model makes
    modes = {part: part.training for module in modules_of(program).values() for part in module.modules()}
    with pyro.validation_enabled(False), torch.random.fork_rng(), torch.no_grad(), poutine.block(), own:
        try:
            for part in modes:
                part.training = False  # batch normalization learns from whatever it sees while in training
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


def invert(
    factors: Iterable[Iterable[str]], order: Sequence[str], summed_out: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """What each site of a posterior is given, if its sites are visited in an order; every dependence is kept.

    Args:
        factors: the sites that each factor of the joint density depends on.
        order: the latent sites; what is not among them is observed.
        summed_out: latent sites that are not visited.

    Returns:
        Of each latent site those before it, and observed ones, that it depends on given them.

    Example:
        >>> from pyro_vae.pairs.declarations import invert
        >>> invert([["a"], ["b"], ["a", "b", "c"], ["c", "d"]], ["c", "b", "a"])  # d is observed
        {'c': ('d',), 'b': ('c',), 'a': ('c', 'b')}
    """
    neighbours: dict[str, set[str]] = {name: set() for name in (*order, *summed_out)}
    for factor in factors:
        joined = set(factor)
        for name in joined:
            neighbours.setdefault(name, set()).update(joined - {name})
    given: dict[str, tuple[str, ...]] = {}
    for name in (*summed_out, *reversed(order)):
        found = neighbours.pop(name)
        for other in found:
            neighbours[other] |= found - {other}
            neighbours[other].discard(name)
        first = {other: place for place, other in enumerate(order)}
        given[name] = tuple(sorted(found, key=lambda other: (first.get(other, len(order)), other)))
    return {name: given[name] for name in order}


def _graph(model: Callable[..., Any], args: tuple[Any, ...], trace: poutine.Trace) -> list[set[str]]:
    """The sites that each factor depends on; all before it, where that cannot be tracked."""
    names = [*trace.stochastic_nodes, *trace.observation_nodes]
    try:
        found = get_dependencies(model, args)["prior_dependencies"]
    except Exception:  # of whatever kind: some operations carry no provenance
        latents = trace.stochastic_nodes
        return [{*latents[: latents.index(name) if name in latents else None], name} for name in names]
    return [{*upstreams, name} for name, upstreams in found.items()]  # type: ignore[attr-defined]


def _order(latents: Sequence[str], local: Sequence[str], first: Sequence[str], steps: Sequence[str]) -> list[str]:
    """Shared sites and then some local ones in the model's order, and the others from the data upwards."""
    upwards = [name for name in reversed(local) if name not in first and name not in steps]
    return [*(name for name in latents if name not in local), *first, *upwards]


def _chain_of(trace: poutine.Trace, local: Sequence[str], sizes: Sequence[int]) -> tuple[Series, ...]:
    """The series of continuous local sites with a site for each step of data of these sizes, or one more or less."""

    def kind(name: str) -> tuple[Any, ...]:
        frames = tuple(frame.name for frame in vectorized_frames(trace.nodes[name]))
        support = _support(trace, name)
        return support.is_discrete, repr(support), tuple(distribution_at(trace, name).event_shape), frames

    lengths = [size + shift for size in sizes for shift in (0, 1, -1)]
    series = find_series(local, kind, lengths)
    if any(_support(trace, one.at(0)).is_discrete for one in series):  # each step is enumerated for itself
        return ()
    return series


def _chain(series: tuple[Series, ...], steps: Sequence[str], sites: dict[str, DeclaredSite]) -> Chain:
    place = {name: i // len(series) for i, name in enumerate(steps)}
    given = dict.fromkeys(name for step in steps for name in sites[step].given if name not in place)
    markov = all(place[name] >= place[step] - 1 for step in steps for name in sites[step].given if name in place)
    pooled = [replace(sites[one.at(0)], draws=torch.cat([sites[name].draws for name in one.names])) for one in series]
    return Chain(series, tuple(pooled), tuple(given), markov)


def _site(traces: Sequence[poutine.Trace], name: str, local: bool, given: Sequence[str]) -> DeclaredSite:
    trace = traces[0]
    d, value, support = distribution_at(trace, name), value_at(trace, name), _support(trace, name)
    values = torch.stack([value_at(other, name) for other in traces]).detach()
    return DeclaredSite(
        name,
        tuple(vectorized_frames(trace.nodes[name])),
        tuple(value.shape[: value.dim() - d.event_dim]),
        tuple(d.event_shape),
        support,
        num_values(d) if support.is_discrete else None,
        local,
        tuple(other for other in given if other in trace.stochastic_nodes),
        any(other not in trace.stochastic_nodes for other in given),
        values.to(torch.get_default_dtype()),
    )


def _support(trace: poutine.Trace, name: str) -> constraints.Constraint:
    support = support_of(distribution_at(trace, name))
    if support is None:
        kind = type(distribution_at(trace, name)).__name__
        raise InputError(
            "latent sites whose distributions say which values they take",
            f"{kind} at {name!r}, which does not",
            "write a guide for this model by hand",
        )
    _check_reached(support, name)
    return support


def _check_reached(support: constraints.Constraint, name: str) -> None:
    """Refuse a support that no bijection from the real numbers is known onto."""
    try:
        if not support.is_discrete:
            biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            "latent sites whose values real numbers can be mapped onto one to one",
            f"the site {name!r}, whose support is {support}",
            "sample what it is made of, scales and LKJCholesky for a covariance, or write a guide by hand",
        ) from error


def _plates_over_data(
    trace: poutine.Trace, latents: Sequence[str], sizes: Sequence[int], wanted: str | None
) -> tuple[tuple[str, ...], int | None, int | None]:
    """The names of the plates over data around latent sites, their dimension, and how many rows there are."""
    frames = [frame for name in _samples(trace) for frame in vectorized_frames(trace.nodes[name])]
    if wanted is not None:
        chosen = [frame for frame in frames if frame.name == wanted]
        if not chosen:
            known = ", ".join(dict.fromkeys(frame.name for frame in frames)) or "none"
            raise InputError(
                f"a plate {wanted!r} in the model", f"the plates {known}", "give one of them as data_plate"
            )
    else:
        chosen = frames
    around = {(frame.name, frame.dim) for name in latents for frame in vectorized_frames(trace.nodes[name])}
    chosen = [frame for frame in chosen if (frame.name, frame.dim) in around]
    if wanted is None:
        rows = next((size for size in sizes if any(frame.size == size for frame in chosen)), None)
        chosen = [frame for frame in chosen if frame.size == rows]
    dims = sorted({frame.dim for frame in chosen if frame.dim is not None})
    names = sorted({frame.name for frame in chosen})
    if len(dims) > 1:
        raise InputError(
            f"one plate over the {chosen[0].size} rows of data",
            " and ".join(names),
            f"say which: data_plate={names[0]!r}",
        )
    return tuple(names), dims[0] if dims else None, chosen[0].size if chosen else None


def _check_latents(trace: poutine.Trace, latents: Sequence[str]) -> None:
    if not latents:
        raise InputError("a model with a latent site", "one that samples nothing", "sample it without obs")
    for name in latents:
        if name.endswith("_unobserved"):
            raise InputError(
                "latent sites of the model's own",
                f"{name!r}, of pyro.sample(…, obs_mask=…)",
                "leave values out by poutine.mask or .mask(…) in the place of obs_mask",
            )


def _check_shared(trace: poutine.Trace, other: poutine.Trace, shared: Sequence[str]) -> None:
    """Refuse sites of rows that no plate says are independent."""
    for name in shared:
        if name in other.nodes and value_at(trace, name).shape != value_at(other, name).shape:
            raise InputError(
                "a plate over the rows around every site that each row has",
                f"the site {name!r}, of shape {tuple(value_at(trace, name).shape)} outside of any",
                'write: with pyro.plate("data", len(x)): …',
            )


def _on_other_rows(model: Callable[..., Any], args: tuple[Any, ...], rows: int) -> poutine.Trace | None:
    """A run on another number of rows; None for programs that are written for just these."""

    def of_others(value: Any) -> Any:
        return other_rows(value) if isinstance(value, Tensor) and value.dim() and len(value) == rows else value

    try:
        return _trace(model, tuple(map(of_others, args)))
    except Exception:  # of whatever kind
        return None


def _trace(model: Callable[..., Any], args: tuple[Any, ...]) -> poutine.Trace:
    try:
        trace = poutine.trace(model).get_trace(*args)
    except NotImplementedError as error:
        if cannot_be_drawn(error):
            raise InputError("latent sites that can be drawn from the model", said(error), PROPER) from error
        raise
    check_takes_every_row("model", trace)
    return prune_subsample_sites(trace)


def _samples(trace: poutine.Trace) -> list[str]:
    """The sample sites, without factors and deterministic values."""
    return [*trace.stochastic_nodes, *(name for name in trace.observation_nodes if not is_bookkeeping(trace, name))]

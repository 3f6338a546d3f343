"""What a pair of programs looks like, read off one run of each: its sites, its plate over data, its dimensions.

The plate over data is the one that has as many rows as the data, whatever it is called: where two plates do, the one
that grows when a row is added.  Sites outside of it are shared by all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyro_vae.pairs.classes import LABEL_SITE, classes_of
from pyro_vae.pairs.observations import computed_sites, observed_entries
from pyro_vae.pairs.traces import (
    distribution_at,
    innermost,
    is_bookkeeping,
    is_factor,
    is_independent,
    num_values,
    rows_axis,
    support_of,
    value_at,
)

DATA_PLATE = "data"
WIDEST_LAYER = 512  # units, for an estimate of memory


@dataclass(frozen=True)
class LatentSite:
    """A continuous latent site, as one datum has it.

    Args:
        shape: the shape of its value.
        support: the values that one number of it can take; None where the distribution does not say.
    """

    shape: tuple[int, ...]
    support: constraints.Constraint | None

    @property
    def size(self) -> int:
        """The dimension D."""
        return math.prod(self.shape)

    @property
    def is_real(self) -> bool:
        """Whether every point of R^D is a value of it."""
        return self.support is constraints.real


@dataclass(frozen=True)
class Structure:
    """The sites, plates and dimensions of a pair, as one run shows them.

    Args:
        latent: the guide's sample sites, in order.
        enumerated: those that ask for parallel enumeration.
        marginal: the latent sites of the model that the guide leaves out, to be summed out in the model.
        continuous: the other latent sites of each datum that the model has too and that are not discrete, in the
            guide's order.
        combinations: the number of joint values of the enumerated sites and of those that are summed out.
        nesting: the number of plate dimensions, Pyro's ``max_plate_nesting``.
        plate_dim: the dimension of the plate over data, or None without one.
        shared: the sites of model and guide outside of it: latents and factors that all data have in common.
        data_dim: the dimension of the plate over data, or None where a latent or an observation lies outside it.
        any_rows: whether the programs run on another number of rows.
        plate_size: the number of rows that the plate over data is said to be drawn from, where it is said.
        observed: the sites that observe data, in the model's order.
        factors: the model's factors.
        entries: by site, which entries of a row of x it observes; none for sites that observe something else.
        support: the values that an entry of x can take; None where that is not known, or not the same for all.
        classes: the values of the label site "y", a class each, of shape ``(K, *event_shape)``; None without such a
            site, over classes, and latent when no label is given.
        sequential: whether the guide enumerates a site one value at a time.
        score_function: the sampled sites that cannot be reparameterized.
        own_draws_only: the sampled sites whose density is known at their own draws alone, as that of planar flows is.
        points: the continuous sites of each datum that the guide puts into one point, of which there is no density.
        computed: the sites that observe what is computed of x, in units of their own.
        reweighted: whether latents count otherwise in training than what is observed, by ``poutine.scale``.
        factorized: whether every sampled site of the guide factorizes over its dimensions.
        same_order: whether model and guide visit the latent sites in the same order, as closed-form KL terms need.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = SSVAE((1, 8, 8), num_classes=10), torch.rand(3, 1, 8, 8).round()
        >>> structure = Pair(model, MeanField(model)).probe(x)
        >>> structure.latent, structure.enumerated, structure.combinations
        (('y', 'z'), ('y',), 10)
    """

    latent: tuple[str, ...]
    enumerated: tuple[str, ...]
    continuous: dict[str, LatentSite]
    combinations: int
    nesting: int
    data_dim: int | None
    support: constraints.Constraint | None
    classes: Tensor | None = None
    marginal: tuple[str, ...] = ()
    plate_dim: int | None = None
    any_rows: bool = True
    plate_size: int | None = None
    shared: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    entries: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sequential: bool = False
    score_function: tuple[str, ...] = ()
    own_draws_only: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    reweighted: bool = False
    factorized: bool = True
    same_order: bool = True

    def widest(self, x: Tensor) -> int:
        r"""The numbers of a run's widest tensor, per datum and draw: an image or a hidden layer, for every label.

        Args:
            x: data of shape (N, \*event_shape).
        """
        return max(math.prod(x.shape[1:]), WIDEST_LAYER) * self.combinations

    @property
    def has_label(self) -> bool:
        """Whether model and guide have a label site "y" over classes that is latent when no label is given."""
        return self.classes is not None

    @property
    def units(self) -> str:
        """The units of densities, draws and reconstructions, in words; empty where they are those of x."""
        others = [name for name in self.observed if name != LABEL_SITE]
        strange = [name for name in others if name in self.computed or name not in self.entries]
        return f"of what {' and '.join(strange)} observes, which is computed of x" if strange else ""

    @property
    def sampled(self) -> tuple[str, ...]:
        """The latent sites that are drawn, not enumerated, in order."""
        return tuple(name for name in self.latent if name not in self.enumerated)

    @property
    def shared_latents(self) -> tuple[str, ...]:
        """The latent sites that all rows share, of which the guide has the posterior given all of them."""
        return tuple(name for name in self.shared if name in self.latent)

    @property
    def sums(self) -> bool:
        """Whether a step sums over the values of a discrete site."""
        return bool(self.enumerated or self.marginal or self.sequential)


@dataclass(frozen=True)
class Traces:
    """One run of a pair: the model's trace, the guide's, and the data.

    Args:
        p: the trace of the model at the guide's latents.
        q: the trace of the guide.
        x: the data.
    """

    p: poutine.Trace
    q: poutine.Trace
    x: Tensor

    @property
    def sites(self) -> list[tuple[str, Any]]:
        """The sample sites of both programs by name, without deterministic values."""
        found = []
        for trace in (self.p, self.q):
            named = [(name, site) for name, site in trace.nodes.items() if site["type"] == "sample"]
            found += [(n, site) for n, site in named if is_factor(trace, n) or not is_bookkeeping(trace, n)]
        return found

    @property
    def frames(self) -> list[CondIndepStackFrame]:
        """The vectorized plates around these sites."""
        return [frame for _, site in self.sites for frame in vectorized_frames(site)]


def num_rows(x: Tensor) -> int:
    """The rows of x; a lone number is one."""
    return len(x) if x.dim() else 1


def read_structure(run: Traces, other: Traces | None = None) -> Structure:
    """The structure of a pair.

    Args:
        run: a run on some rows.
        other: a run on another number of rows, where there is one: it tells the plate over data from its likes.
    """
    p, q, rows = run.p, run.q, num_rows(run.x)
    plate_dim, plates = _plates_over_data(run, other)
    outside = [n for n, site in run.sites if not any(frame.name in plates for frame in vectorized_frames(site))]
    enumerated = tuple(n for n in q.stochastic_nodes if enumerates(q, n) == "parallel")
    sampled = [n for n in q.stochastic_nodes if n not in enumerated]
    local = [n for n in sampled if n in p.nodes and n not in outside and not _is_discrete(distribution_at(p, n))]
    marginal = tuple(n for n in p.stochastic_nodes if n not in q.nodes)
    observed = tuple(n for n in p.observation_nodes if not is_bookkeeping(p, n))
    comes_apart = plate_dim is not None and not {*outside} & {*q.stochastic_nodes, *marginal, *observed}
    entries = observed_entries(p, observed, run.x, plate_dim)
    sizes = {frame.full_size or rows for frame in run.frames if frame.name in plates} - {rows}
    return Structure(
        latent=tuple(q.stochastic_nodes),
        enumerated=enumerated,
        marginal=marginal,
        continuous={} if plate_dim is None else {n: _latent_site(p, n, plate_dim) for n in local},
        combinations=math.prod(
            num_values(distribution_at(trace, n)) or 1
            for trace, names in ((q, enumerated), (p, marginal))
            for n in names
        ),
        nesting=max((-(frame.dim or 0) for frame in run.frames), default=0),
        plate_dim=plate_dim,
        any_rows=other is not None,
        plate_size=max(sizes) if sizes else None,
        shared=tuple(dict.fromkeys(n for n in outside if n not in observed)),
        data_dim=plate_dim if comes_apart else None,
        observed=observed,
        factors=tuple(n for n in p.observation_nodes if is_factor(p, n)),
        entries=entries,
        support=_support_of_entries(run, entries),
        classes=classes_of(p, q),
        sequential=any(enumerates(q, n) == "sequential" for n in q.stochastic_nodes),
        score_function=tuple(n for n in sampled if not distribution_at(q, n).has_rsample),
        own_draws_only=tuple(n for n in sampled if not _scores_any_point(distribution_at(q, n), value_at(q, n))),
        points=_points(run, local),
        computed=computed_sites(p, entries, run.x, plate_dim),
        reweighted=_are_reweighted(p, q, observed),
        factorized=all(
            distribution_at(q, n).event_shape == () or is_independent(distribution_at(q, n)) for n in sampled
        ),
        same_order=[n for n in p.stochastic_nodes if n in q.stochastic_nodes] == q.stochastic_nodes,
    )


def _are_reweighted(p: Trace, q: Trace, observed: Sequence[str]) -> bool:
    """Whether latents and observations have different scales, beside those of plates that draw some of their rows."""

    def weight(site: Any) -> float:
        drawn = [frame.size / frame.full_size for frame in vectorized_frames(site) if frame.full_size]
        return float(torch.as_tensor(site["scale"], dtype=torch.double).mean()) * math.prod(drawn)

    latents = [*map(p.nodes.get, p.stochastic_nodes), *map(q.nodes.get, q.stochastic_nodes)]
    weights = [weight(site) for site in (*latents, *(p.nodes[name] for name in observed))]
    return bool(weights) and not math.isclose(min(weights), max(weights), rel_tol=1e-6)


def _support_of_entries(run: Traces, entries: dict[str, tuple[int, ...]]) -> constraints.Constraint | None:
    """The values that an entry of x can take; None where not every entry is observed, or not all of them alike."""
    seen = {place for places in entries.values() for place in places}
    if seen != set(range(run.x.numel() // max(1, num_rows(run.x)))):
        return None
    supports = [_support_of_one(distribution_at(run.p, name)) for name in entries]
    alike = bool(supports) and all(other is supports[0] for other in supports)
    return supports[0] if alike and not getattr(supports[0], "event_dim", 0) else None


def _plates_over_data(run: Traces, other: Traces | None) -> tuple[int | None, set[str]]:
    """The dimension of the plate over data, and the names that it goes by; None and nothing without one."""
    rows = num_rows(run.x)
    found = {(frame.name, frame.dim) for frame in run.frames if frame.size == rows}
    if other is not None:
        found &= {(frame.name, frame.dim) for frame in other.frames if frame.size == len(other.x)}
    dims = [dim for name, dim in sorted(found, key=lambda plate: plate[0] != DATA_PLATE)]
    if not dims:
        return None, set()
    return dims[0], {name for name, dim in found if dim == dims[0]}


def vectorized_frames(site: Any) -> list[CondIndepStackFrame]:
    """The vectorized plates around a site; one that was given no size has that of the site's value."""
    value, found = site["value"], []
    batch = value.shape[: value.dim() - site["fn"].event_dim]
    for frame in (frame for frame in site["cond_indep_stack"] if frame.vectorized):
        if frame.size < 0:
            size = batch[frame.dim] if len(batch) >= -frame.dim else 1
            frame = frame._replace(size=size, full_size=None)
        found.append(frame)
    return found


def enumerates(trace: poutine.Trace, name: str) -> str | None:
    """How a site asks to be enumerated: ``parallel``, ``sequential``, or not."""
    how: str | None = (trace.nodes[name]["infer"] or {}).get("enumerate")
    return how


def _latent_site(p: poutine.Trace, name: str, plate_dim: int) -> LatentSite:
    d, value = distribution_at(p, name), value_at(p, name)
    return LatentSite(tuple(value.movedim(rows_axis(value, d.event_dim, plate_dim), 0).shape[1:]), _support_of_one(d))


def _points(run: Traces, names: list[str]) -> tuple[str, ...]:
    """The sites that are a ``Delta`` in the guide alone; one that hands on the draw of another site has a density."""
    if any(name not in run.p.nodes for name in run.q.stochastic_nodes):
        return ()
    found = [name for name in names if not isinstance(innermost(run.p, name), dist.Delta)]
    deltas = {name: innermost(run.q, name) for name in found}
    return tuple(name for name, d in deltas.items() if isinstance(d, dist.Delta) and not d.log_density.any())


def _is_discrete(d: dist.TorchDistribution) -> bool:
    support = support_of(d)
    return support is not None and bool(support.is_discrete)


def _scores_any_point(q: dist.TorchDistribution, value: Tensor) -> bool:
    try:
        q.log_prob(value.clone())  # a clone, which no cache of a transform knows
    except (NotImplementedError, KeyError):  # Pyro's word for a transform without an inverse
        return False
    return True


def _support_of_one(d: dist.TorchDistribution) -> constraints.Constraint | None:
    """The values that one number of a value can take; None where the distribution does not say."""
    support = support_of(d)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support

r"""A guide for any Pyro program, made from what its latent sites say of themselves.

    q(theta, z | x) = q(theta) prod_n prod_l q_l(z_nl | encoder_l(x_n, z_n given, theta given))

Sites that all rows share, theta, have a normal of their own (see ``shared``); those of each row have an encoder over
the data and the distribution of a *family*, any guide by name.  Which sites each is given is the faithful inverse of
the model (see ``pairs.declarations``): of p(z_2) p(z_1 | z_2) p(x | z_1) it is q(z_1 | x) q(z_2 | z_1).  Supports other
than R^D are reached by ``biject_to``; a discrete site of few values is enumerated, and one of many sampled, with its
score-function term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import prune_subsample_sites
from torch import BoolTensor, Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.guides.base import GUIDES
from pyro_vae.guides.discrete import CountLayout, EnumeratedLayout
from pyro_vae.guides.inputs import Inputs
from pyro_vae.guides.sequences import BEFORE, STATE, STEP, SUMMARY, WIDTH, Before, InSteps, Summaries
from pyro_vae.guides.shared import SharedNormal
from pyro_vae.guides.site_distribution import ContinuousLayout, SiteDistribution, SiteLayout
from pyro_vae.models.base import Latent, Model, NamedModule
from pyro_vae.networks import MLP, Network, Shape
from pyro_vae.pairs.declarations import Chain, Declarations, DeclaredSite, declarations, looking
from pyro_vae.pairs.traces import distribution_at
from pyro_vae.pairs.weighting import Weight, find_weights

MOST_SHARED = 64  # numbers of shared sites that an encoder sees without being told to


def amortize(
    model: Callable[..., Any],
    family: str,
    example: Any,
    *,
    data_plate: str | None = None,
    sees_shared: bool | None = None,
    rows_first: bool = False,
    network: Network | None = None,
    classifier: Network | None = None,
) -> nn.Module:
    r"""A guide for a model, any Pyro program.

    It is called with what the model is called with.  Its encoders see the arguments that are tensors with as many rows
    as the data; one that bears the name of a latent site, such as a label ``y``, is an observation of it instead.

    Args:
        model: the program.
        family: a guide by name, ``mean_field``, ``iaf:num_transforms=4``, …, for the sites of each row.
        example: what the model is called with: data of some rows, shape (N, \*event_shape); several arguments as a
            tuple.  NaN in one says that values of it may be missing: encoders see zero and an indicator.
        data_plate: the plate over the rows; None: the one around latent sites as long as a dimension of the data.
        sees_shared: whether encoders see the sites that all rows share; None: where these are at most 64 numbers.
        rows_first: whether rows are the first dimension of the data, whatever plates there are.
        network: makes the encoders; default: an MLP, of one hidden layer where they are there for each step.
        classifier: makes the encoder of a discrete site that no other shares; default: ``network``.

    Raises:
        InputError: if the model has no latent site, or one that this has no guide for, or the example has no tensor.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from pyro_vae.guides import amortize
        >>> def model(x):
        ...     with pyro.plate("rows", len(x)):
        ...         rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...         pyro.sample("x", dist.Normal(rate, 1.0), obs=x)
        >>> guide, x = amortize(model, "mean_field", torch.rand(6)), torch.rand(50)
        >>> pyro.poutine.trace(guide).get_trace(x).nodes["rate"]["value"].shape
        torch.Size([50])
    """
    if isinstance(model, Model):
        return GUIDES.build(family, model=model, network=network, classifier=classifier)
    GUIDES.check(family)
    args = example if isinstance(example, tuple) else (example,)

    options = {"sees_shared": sees_shared, "network": network, "classifier": classifier}
    made = partial(_made, model, family, args, options, data_plate=data_plate, rows_first=rows_first)
    return _that_runs(model, args, made)


def _that_runs(model: Callable[..., Any], args: tuple[Any, ...], made: Callable[..., Amortized]) -> Amortized:
    """A guide that visits discrete sites first, or, where the model does not run so, in their place."""
    guide = made(discrete_first=True)
    if guide.enumerates and not _runs_with(model, guide, args):
        other = made(discrete_first=False)
        guide = other if _runs_with(model, other, args) else guide
    return guide


def _made(
    model: Callable[..., Any], family: str, args: tuple[Any, ...], options: dict[str, Any], **reading: Any
) -> Amortized:
    inputs = Inputs(model)
    arguments = inputs.bound(args, {})
    inputs.check_example(arguments)
    sites = declarations(model, args, inputs.sizes(arguments), **reading)
    inputs.look(arguments, {site.name for site in sites.sites}, sites)
    return Amortized(sites, inputs, family, _weights(model, args, inputs, sites), **options)


def _runs_with(model: Callable[..., Any], guide: Amortized, args: tuple[Any, ...]) -> bool:
    """Whether a model bears the values that a guide enumerates, and all that the guide makes of each of them."""
    with looking(model):
        trace = pyro.poutine.trace(model).get_trace(*args)
        frames = [frame for site in trace.nodes.values() for frame in site.get("cond_indep_stack", ())]
        nesting = max((-(frame.dim or 0) for frame in frames), default=0)
        try:
            TraceEnum_ELBO(max_plate_nesting=nesting, strict_enumeration_warning=False).loss(model, guide, *args)
        except Exception:  # of whatever kind
            return False
    return True


def _weights(
    model: Callable[..., Any], args: tuple[Any, ...], inputs: Inputs, sites: Declarations
) -> dict[str, Weight]:
    """How much the sites of a model count, a series by the name of its first site."""

    def run(arguments: Mapping[str, Any]) -> pyro.poutine.Trace:
        given, named = inputs.call(args, arguments)
        return pyro.poutine.trace(model).get_trace(*given, **named)

    names: dict[str, tuple[str, ...]] = {site.name: (site.name,) for site in sites.sites}
    if sites.chain is not None:
        names |= {series.at(0): series.names for series in sites.chain.series}
    with looking(model):
        return find_weights(run, inputs.by_row(inputs.bound(args, {})), names, sites.data_dim)


class Amortized(NamedModule):
    """The guide that ``amortize`` makes.

    Args:
        sites: the latent sites of the model.
        inputs: what encoders see of the model's arguments.
        family: a guide by name.
        weights: how much sites count, where that is not 1.
        sees_shared: whether encoders see shared sites; None: if they are few.
        network: makes the encoders.
        classifier: makes the encoder of a discrete site.
    """

    def __init__(
        self,
        sites: Declarations,
        inputs: Inputs,
        family: str,
        weights: Mapping[str, Weight] | None = None,
        sees_shared: bool | None = None,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self._sites, self._weights = inputs, sites, dict(weights or {})
        self._keys = {site.name: f"{i}_{site.name}".replace(".", "_") for i, site in enumerate(sites.every)}
        layouts = {site.name: _layout(site, sites.data_dim) for site in sites.every}
        self.layouts = nn.ModuleDict({self._keys[name]: layout for name, layout in layouts.items()})
        self._layouts = layouts  # by name; a read of a module's attribute would state its parameters to Pyro
        shared = [site for site in sites.sites if not site.local]
        self.shared = nn.ModuleDict({self._keys[site.name]: _shared_normal(site) for site in shared})
        if sees_shared is None:
            sees_shared = sum(self._layouts[site.name].size for site in shared) <= MOST_SHARED
        self.summaries = Summaries(inputs.sequences) if inputs.sequences else None
        self.before = None
        if sites.chain is not None:
            self.before = Before(
                {self._keys[s.name]: layouts[s.name].size for s in sites.chain.sites}, sites.chain.markov
            )
        self._check_sizes(family)
        declared = self._declare(shared if sees_shared else [])
        self._given = {latent.name: latent.given for latent in declared.latents}
        if sites.chain is not None:
            network = network or MLP(hidden=(WIDTH,))
        options = {"model": declared, "network": network, "classifier": classifier}
        self.local = GUIDES.build(family, **options) if declared.latents else None

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Sample the latent sites; takes what the model takes."""
        arguments = self.inputs.bound(args, kwargs)
        values, plates = self.inputs(arguments), self._plates(self.inputs.rows(arguments))
        conditionals: Any = {} if self.local is None else self.local.conditionals  # read once
        by_row, states = self.inputs.by_row(arguments), None
        if self.summaries is not None:
            states = self._at_rows(self.summaries(values, self._there(by_row)))
            values[SUMMARY] = torch.cat([states[..., -1, :STATE], states[..., 0, STATE:]], -1)
        for site in self._sites.sites:
            key, layout = self._keys[site.name], self._layouts[site.name]
            value = arguments.get(site.name)
            if isinstance(value, Tensor):
                values[key] = layout.features(value)
                continue
            q = self._local(key, layout, conditionals, values) if site.local else self.shared[key]()
            values[key] = _features(q, layout, self._sample(site.name, site, q, plates, by_row))
        if self.before is not None and states is not None:
            self._walk(conditionals, values, states, plates, by_row)

    @property
    def enumerates(self) -> bool:
        """Whether it asks Pyro to sum over the values of a site, beside others."""
        return len(self._sites.every) > 1 and any(site.cardinality is not None for site in self._sites.sites)

    def _walk(
        self,
        conditionals: Any,
        values: dict[str, Tensor],
        states: Tensor,
        plates: dict[str, pyro.plate],
        by_row: dict[str, Any],
    ) -> None:
        """Sample the sites of a chain, step by step."""
        chain, before = cast(Chain, self._sites.chain), cast(Before, self.before)
        steps, last = self.inputs.num_steps(by_row), states.shape[-2] - 1
        ahead = max(steps - last - 1, 0)  # a site before the first step of data
        keys = [self._keys[site.name] for site in chain.sites]
        at = {key: InSteps(conditionals[key], self._given[key], self._known(values, states)) for key in keys}
        values[BEFORE] = before.start
        for step in range(steps):
            entry = min(max(step - ahead, 0), last)
            values[STEP] = states[..., entry, :]
            for series, site in zip(chain.series, chain.sites, strict=True):
                key, layout = self._keys[site.name], self._layouts[site.name]
                q = layout.distribution(at[key](entry, values))
                values[key] = _features(q, layout, self._sample(series.at(step), site, q, plates, by_row, step))
            values[BEFORE] = before.after(values[BEFORE], values)

    def _known(self, values: Mapping[str, Tensor], states: Tensor) -> dict[str, Tensor]:
        """What is known of all steps, with a dimension for them before those of an event."""
        shapes = self.inputs.shapes  # of all others an event is a vector
        known = {name: value.unsqueeze(-1 - len(shapes.get(name, (1,)))) for name, value in values.items()}
        return known | {STEP: states}

    def _local(
        self, key: str, layout: SiteLayout, conditionals: Any, values: Mapping[str, Tensor]
    ) -> dist.TorchDistribution:
        """The distribution of a site of each row, from what it is given."""
        return layout.distribution(conditionals[key](*(values[name] for name in self._given[key])))

    def _sample(
        self,
        name: str,
        site: DeclaredSite,
        q: dist.TorchDistribution,
        plates: dict[str, pyro.plate],
        by_row: dict[str, Any],
        step: int = 0,
    ) -> Tensor:
        infer: Any = {}
        if site.cardinality is not None:
            infer = {"enumerate": "parallel", "expand": True}  # some programs join it to others
        weight = self._weights.get(site.name, Weight())
        with ExitStack() as around:
            for frame in site.plates:
                around.enter_context(plates[frame.name])
            if weight.presence is not None:
                there = self._at_rows(weight.presence(by_row, step))
                around.enter_context(pyro.poutine.mask(mask=cast(BoolTensor, there)))
            if weight.scale is not None:
                around.enter_context(pyro.poutine.scale(scale=by_row[weight.scale]))
            return pyro.sample(name, q, infer=infer)

    def _there(self, by_row: dict[str, Any]) -> Tensor | None:
        """Which steps the sequences of each row have, shape (N, T); None where all have all."""
        chain = self._sites.chain
        presence = self._weights.get(chain.sites[0].name, Weight()).presence if chain else None
        if presence is None or presence.kind == "row":
            return None
        first = 0 if presence.kind == "length" else -presence.shift
        return torch.stack([presence(by_row, first + t) for t in range(self.inputs.num_entries(by_row))], 1)

    def _at_rows(self, value: Tensor) -> Tensor:
        """A value for each row, with a dimension of one entry for each plate inside that over data."""
        dim = self._sites.data_dim or -1
        return value.reshape(value.shape[0], *[1] * (-dim - 1), *value.shape[1:])

    def posterior(self, *args: Any, **kwargs: Any) -> dict[str, dist.TorchDistribution]:
        """The distribution of every site, given draws of those before it, outside of any inference.

        Takes what the model takes.
        """
        with torch.no_grad(), pyro.poutine.block():
            trace = pyro.poutine.trace(self).get_trace(*args, **kwargs)
        return {name: distribution_at(trace, name) for name in prune_subsample_sites(trace).stochastic_nodes}

    def _check_sizes(self, family: str) -> None:
        kind = GUIDES[GUIDES.check(family)[0]]
        fewest = getattr(kind, "fewest", 1)
        for site in self._sites.every:
            if site.local and not site.is_discrete and self._layouts[site.name].size < fewest:
                raise InputError(
                    f"sites of at least {fewest} numbers in a row for the guide {family!r}",
                    f"the site {site.name!r}, of {self._layouts[site.name].size}",
                    "use mean_field, spline or another guide",
                )

    def _plates(self, rows: int | None) -> dict[str, pyro.plate]:
        """The plates of the model by name, for so many rows."""
        over_data = self._sites.data_plates
        frames = {frame.name: frame for site in self._sites.every for frame in site.plates}
        return {name: _plate(frame, rows if name in over_data else None) for name, frame in frames.items()}

    def _declare(self, seen: list[DeclaredSite]) -> _OfRows:
        """The sites of each row, as a guide by name has to know them; the shared sites that are seen are inputs."""
        sites, data = self._sites, dict(self.inputs.shapes)
        inputs = data | {self._keys[site.name]: (self._layouts[site.name].size,) for site in seen}
        if self.summaries is not None:
            data[SUMMARY] = inputs[SUMMARY] = inputs[STEP] = (self.summaries.size,)
        if self.before is not None:
            inputs[BEFORE] = (self.before.size,)
        names = {site.name for site in sites.sites if site.local} | {site.name for site in seen}
        latents = []
        for site in (site for site in sites.sites if site.local):
            given = tuple(self._keys[name] for name in site.given if name in names)
            if site.sees_data or not given:
                given = (*data, *given)
            if not given:
                raise InputError(
                    "a model that is called with its data, for an encoder to see",
                    f"one that is called with none, and the site {site.name!r} of each row",
                    "hand the data over: def model(x): …",
                )
            latents.append(self._latent(site, given))
        earlier: tuple[str, ...] = ()
        for site in sites.chain.sites if sites.chain else ():
            given = tuple(self._keys[name] for name in cast(Chain, sites.chain).given if name in names)
            latents.append(self._latent(site, (STEP, BEFORE, *self.inputs.shapes, *given, *earlier)))
            earlier += (self._keys[site.name],)
        return _OfRows(tuple(latents), inputs)

    def _latent(self, site: DeclaredSite, given: tuple[str, ...]) -> Latent:
        layout = self._layouts[site.name]
        return Latent(self._keys[site.name], layout.size, given, site.cardinality is not None, layout.conditional)


@dataclass(frozen=True)
class _OfRows:
    latents: tuple[Latent, ...]
    inputs: dict[str, Shape]


def _layout(site: DeclaredSite, data_dim: int | None) -> SiteLayout:
    shapes, dim = (site.batch_shape, site.event_shape), data_dim if site.local else None
    if not site.is_discrete:
        return ContinuousLayout(*shapes, dim, site.support, site.draws)
    if not site.local:
        raise InputError(
            "a continuous site, or a plate over the rows around it",
            f"the discrete site {site.name!r}, which all rows share",
            "sum it out in the model: pyro.infer.config_enumerate(model)",
        )
    if site.cardinality is None:
        return CountLayout(site.name, *shapes, site.support, dim)
    return EnumeratedLayout(*shapes, site.support, dim, site.cardinality)


def _shared_normal(site: DeclaredSite) -> SharedNormal:
    return SharedNormal(site.draws, site.support, len(site.event_shape))


def _features(q: dist.TorchDistribution, layout: SiteLayout, value: Tensor) -> Tensor:
    """What encoders see of a value that was drawn."""
    return q.vector(value) if isinstance(q, SiteDistribution) else layout.features(value)


def _plate(frame: CondIndepStackFrame, rows: int | None) -> pyro.plate:
    """A plate as the model has it, for so many rows where it is the one over data."""
    if frame.full_size is None:  # it was given no size, and Pyro warns of one that the guide alone has a site for
        return pyro.plate(frame.name, dim=frame.dim)
    size = frame.size if rows is None else rows
    if frame.full_size == frame.size:
        return pyro.plate(frame.name, size, dim=frame.dim)
    return pyro.plate(frame.name, frame.full_size, subsample=torch.arange(size), dim=frame.dim)

r"""A guide for any Pyro program, made from what its latent sites say of themselves.

    q(theta, z | x) = q(theta) prod_n prod_l q_l(z_nl | encoder_l(x_n, z_n given, theta given))

Sites that all rows share, theta, have a normal of their own (see ``shared``); those of each row have an encoder over
the data and the distribution of a *family*, any guide by name.  Which sites each is given is the faithful inverse of
the model (see ``pairs.declarations``): of p(z_2) p(z_1 | z_2) p(x | z_1) it is q(z_1 | x) q(z_2 | z_1).  Supports other
than R^D are reached by ``biject_to``; a discrete site of few values is enumerated, and one of many sampled, with its
score-function term.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.guides.base import GUIDES
from pyro_vae.guides.discrete import CountLayout, EnumeratedLayout
from pyro_vae.guides.inputs import Inputs
from pyro_vae.guides.shared import SharedNormal
from pyro_vae.guides.site_distribution import ContinuousLayout, SiteDistribution, SiteLayout
from pyro_vae.models.base import Latent, Model, NamedModule
from pyro_vae.networks import Network, Shape
from pyro_vae.pairs.declarations import Declarations, DeclaredSite, declarations
from pyro_vae.pairs.traces import distribution_at

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

    It is called with what the model is called with.  Arguments that are tensors with as many rows as the data are seen
    by the encoders, but for one that bears the name of a latent site, such as a label ``y``: where it is given, the
    site is observed.

    Args:
        model: the program.
        family: a guide by name, ``mean_field``, ``iaf:num_transforms=4``, …, for the sites of each row.
        example: what the model is called with: data of some rows, shape (N, \*event_shape); several arguments as a
            tuple.  NaN in one says that values of it may be missing: encoders see zero and an indicator.
        data_plate: the plate over the rows; None: the one around latent sites that has as many entries as the data have
            in their first dimension, else in another.
        sees_shared: whether encoders see the sites that all rows share, if those of a row depend on them; None: where
            these are at most 64 numbers.
        rows_first: whether rows are the first dimension of the data, whatever plates there are.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site that no other shares; default: ``network``.

    Raises:
        InputError: if the model has no latent site, or one that this cannot make a guide for.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from pyro_vae.guides import amortize
        >>> def model(x):
        ...     spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
        ...     with pyro.plate("rows", len(x)):
        ...         rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...         pyro.sample("x", dist.Normal(rate, spread), obs=x)
        >>> x = torch.rand(6)
        >>> guide = amortize(model, "mean_field", x)
        >>> pyro.poutine.trace(guide).get_trace(x).nodes["rate"]["value"].shape
        torch.Size([6])
        >>> pyro.infer.Trace_ELBO().loss(model, guide, x) > 0
        True
    """
    if isinstance(model, Model):
        return GUIDES.build(family, model=model, network=network, classifier=classifier)
    GUIDES.check(family)
    inputs, args = Inputs(model), example if isinstance(example, tuple) else (example,)
    arguments = inputs.bound(args, {})
    sizes = inputs.sizes(arguments)
    sites = declarations(model, args, sizes[:1] if rows_first else sizes, data_plate)
    inputs.look(arguments, {site.name for site in sites.sites}, sites.rows, sites.data_dim)
    return Amortized(sites, inputs, family, sees_shared, network, classifier)


class Amortized(NamedModule):
    """The guide that ``amortize`` makes.

    Args:
        sites: the latent sites of the model.
        inputs: what encoders see of the model's arguments.
        family: a guide by name.
        sees_shared: whether encoders see shared sites; None: if they are few.
        network: makes the encoders.
        classifier: makes the encoder of a discrete site.
    """

    def __init__(
        self,
        sites: Declarations,
        inputs: Inputs,
        family: str,
        sees_shared: bool | None = None,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self._sites = inputs, sites
        self._keys = {site.name: f"{i}_{site.name}".replace(".", "_") for i, site in enumerate(sites.sites)}
        layouts = {site.name: _layout(site, sites.data_dim) for site in sites.sites}
        self.layouts = nn.ModuleDict({self._keys[name]: layout for name, layout in layouts.items()})
        self._layouts = layouts
        shared = [site for site in sites.sites if not site.local]
        self.shared = nn.ModuleDict({self._keys[site.name]: _shared_normal(site) for site in shared})
        if sees_shared is None:
            sees_shared = sum(self._layouts[site.name].size for site in shared) <= MOST_SHARED
        self._check_sizes(family)
        declared = self._declare(shared if sees_shared else [])
        self._given = {latent.name: latent.given for latent in declared.latents}
        options = {"model": declared, "network": network, "classifier": classifier}
        self.local = GUIDES.build(family, **options) if declared.latents else None

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Sample the latent sites; takes what the model takes."""
        arguments = self.inputs.bound(args, kwargs)
        values, plates = self.inputs(arguments), self._plates(self.inputs.rows(arguments))
        conditionals: Any = {} if self.local is None else self.local.conditionals  # read once
        for site in self._sites.sites:
            key, layout = self._keys[site.name], self._layouts[site.name]
            value = arguments.get(site.name)
            if isinstance(value, Tensor):
                values[key] = layout.features(value)
                continue
            if site.local:
                q = layout.distribution(conditionals[key](*(values[name] for name in self._given[key])))
            else:
                q = self.shared[key]()
            value = _sample(site, q, plates)
            values[key] = q.vector(value) if isinstance(q, SiteDistribution) else layout.features(value)

    def posterior(self, *args: Any, **kwargs: Any) -> dict[str, dist.TorchDistribution]:
        """The distribution of every site, given draws of those before it, outside of any inference.

        Takes what the model takes.
        """
        with torch.no_grad(), pyro.poutine.block():
            trace = pyro.poutine.trace(self).get_trace(*args, **kwargs)
        return {name: distribution_at(trace, name) for name in self._keys if name in trace.nodes}

    def _check_sizes(self, family: str) -> None:
        kind = GUIDES[GUIDES.check(family)[0]]
        fewest = getattr(kind, "fewest", 1)
        for site in self._sites.sites:
            if site.local and not site.is_discrete and self._layouts[site.name].size < fewest:
                raise InputError(
                    f"sites of at least {fewest} numbers in a row for the guide {family!r}",
                    f"the site {site.name!r}, of {self._layouts[site.name].size}",
                    "use mean_field, spline or another guide",
                )

    def _plates(self, rows: int | None) -> dict[str, pyro.plate]:
        """The plates of the model by name, for so many rows."""
        over_data = self._sites.data_plates
        frames = {frame.name: frame for site in self._sites.sites for frame in site.plates}
        return {name: _plate(frame, rows if name in over_data else None) for name, frame in frames.items()}

    def _declare(self, seen: list[DeclaredSite]) -> _OfRows:
        """The sites of each row, as a guide by name has to know them; the shared sites that are seen are inputs."""
        shared = {self._keys[site.name]: (self._layouts[site.name].size,) for site in seen}
        names = {site.name for site in self._sites.sites if site.local} | {site.name for site in seen}
        latents = []
        for site in (site for site in self._sites.sites if site.local):
            given = tuple(self._keys[name] for name in site.given if name in names)
            if site.sees_data or not given:
                given = (*self.inputs.shapes, *given)
            if not given:
                raise InputError(
                    "a model that is called with its data, for an encoder to see",
                    f"one that is called with none, and the site {site.name!r} of each row",
                    "hand the data over: def model(x): …",
                )
            layout, discrete = self._layouts[site.name], site.cardinality is not None
            latents.append(Latent(self._keys[site.name], layout.size, given, discrete, layout.conditional))
        return _OfRows(tuple(latents), self.inputs.shapes | shared)


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


def _sample(site: DeclaredSite, q: dist.TorchDistribution, plates: dict[str, pyro.plate]) -> Tensor:
    infer: Any = {} if site.cardinality is None else {"enumerate": "parallel", "expand": True}  # some join it to others
    with ExitStack() as around:
        for frame in site.plates:
            around.enter_context(plates[frame.name])
        return pyro.sample(site.name, q, infer=infer)


def _plate(frame: CondIndepStackFrame, rows: int | None) -> pyro.plate:
    """A plate as the model has it, for so many rows where it is the one over data."""
    size = frame.size if rows is None else rows
    if frame.full_size is None or frame.full_size == frame.size:
        return pyro.plate(frame.name, size, dim=frame.dim)
    return pyro.plate(frame.name, frame.full_size, subsample=torch.arange(size), dim=frame.dim)

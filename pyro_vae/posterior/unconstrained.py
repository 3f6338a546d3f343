"""The continuous latents of a datum as one flat vector of unconstrained numbers.

Site after site, the value z of a site is T(u), T the bijection from R^k onto its support: sampling and optimization see
R^D alone, and densities gain log |dT/du|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from pyro.distributions import MixtureSameFamily, TorchDistribution, constraints
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_vae.errors import InputError
from pyro_vae.pairs.layout import Layout, per_datum
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.traces import distribution_at, value_at
from pyro_vae.shapes import Float


@dataclass(frozen=True)
class FlatSite:
    """A continuous latent site as a part of the vector.

    Args:
        name: the sample site.
        transform: T, from unconstrained values onto the support.
        plates: the sizes of the plate dimensions, the plate over data among them.
        event_shape: the event shape of a value.
        columns: where its unconstrained numbers lie in the vector.
    """

    name: str
    transform: Transform
    plates: tuple[int, ...]
    event_shape: tuple[int, ...]
    columns: slice

    @property
    def free_shape(self) -> tuple[int, ...]:
        """The shape of an unconstrained value, plates left out."""
        return tuple(self.transform.inverse_shape(torch.Size(self.event_shape)))


class FlatVector:
    """The vector, D numbers per datum.

    Args:
        structure: the structure of the pair.
        sites: in the order in which they lie in the vector.
    """

    def __init__(self, structure: Structure, sites: tuple[FlatSite, ...]) -> None:
        self.structure, self.sites = structure, sites
        self.size = max((site.columns.stop for site in sites), default=0)

    @classmethod
    def from_traces(cls, structure: Structure, guided: Trace, generated: Trace) -> Self:
        """From traces of the guide and of the model.

        Raises:
            InputError: if a latent site is discrete and not enumerated, or enumerated by the guide for each row where
                all rows are one datum.
        """
        of_rows = [name for name in structure.enumerated if name not in structure.shared]
        if structure.data_dim is None and structure.shared_latents and of_rows:
            raise InputError(
                "labels of rows that the model sums out, where latents are shared by all rows",
                f"the site {of_rows[0]!r}, which the guide enumerates",
                "mark it in the model, pyro.infer.config_enumerate(model), and leave it out of the guide",
            )
        nesting, sites, start = structure.nesting, [], 0
        for name in (name for name in structure.sampled if name in generated.nodes):
            d, shape = distribution_at(generated, name), tuple(value_at(guided, name).shape)
            transform, event_shape = biject_to(_support(name, d)), tuple(d.event_shape)
            batch = (1,) * nesting + shape[: len(shape) - d.event_dim]
            plates = batch[len(batch) - nesting :]
            width = math.prod(transform.inverse_shape(torch.Size(event_shape)))
            stop = start + width * math.prod(_others(structure, plates))
            sites.append(FlatSite(name, transform, plates, event_shape, slice(start, stop)))
            start = stop
        return cls(structure, tuple(sites))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of the D numbers: ``z[3]``, or ``mu`` for a site of one."""
        widths = ((site.name, site.columns.stop - site.columns.start) for site in self.sites)
        return tuple(f"{name}[{i}]" if width > 1 else name for name, width in widths for i in range(width))

    def constrain(self, u: Float[Tensor, "S N D"]) -> tuple[dict[str, Tensor], Float[Tensor, "S N"]]:
        """From u, shape (S, N, D), the values of the sites as the programs have them, and log |dT/du|, shape (S, N)."""
        structure = self.structure
        values: dict[str, Tensor] = {}
        log_jacobian = u.new_zeros(u.shape[:2])
        for site in self.sites:
            free = u[..., site.columns].reshape(*u.shape[:2], *_others(structure, site.plates), *site.free_shape)
            free = free.squeeze(1) if structure.data_dim is None else free.movedim(1, self._data_dim)
            values[site.name] = site.transform(free)
            jacobian = site.transform.log_abs_det_jacobian(free, values[site.name])
            plates = free.shape[1 : 1 + structure.nesting]
            log_jacobian = log_jacobian + per_datum(jacobian.reshape(len(u), *plates, -1).sum(-1), structure)
        return values, log_jacobian

    def values(self, u: Float[Tensor, "S N D"]) -> dict[str, Float[Tensor, "S N ..."]]:
        r"""The latents by site, shape (S, N, \*shape), of unconstrained vectors of shape (S, N, D)."""
        found = {}
        constrained, _ = self.constrain(u)
        for site in self.sites:
            value = constrained[site.name]
            value = value.unsqueeze(1) if self.structure.data_dim is None else value.movedim(self._data_dim, 1)
            sizes = [size for size in _others(self.structure, site.plates) if size > 1]
            found[site.name] = value.reshape(*u.shape[:2], *sizes, *site.event_shape)
        return found

    def free(self, trace: Trace, layout: Layout) -> Float[Tensor, "E S N D"]:
        """The vector in a trace, for every label where it depends on it: shape (E or 1, S, N, D)."""
        free = [
            layout.features(site.transform.inv(value_at(trace, site.name)), len(site.free_shape)) for site in self.sites
        ]
        if not free:
            return layout.zero.new_zeros(1, *layout.zero.shape[-2:], 0)
        labels = max(len(value) for value in free)
        return torch.cat([value.expand(labels, -1, -1, -1) for value in free], -1)

    @property
    def _data_dim(self) -> int:
        """The dimension of the plate over data in values of shape (S, plates…, …)."""
        assert self.structure.data_dim is not None
        return 1 + self.structure.nesting + self.structure.data_dim


def _others(structure: Structure, plates: tuple[int, ...]) -> list[int]:
    """The sizes of the plates but the data's."""
    data = None if structure.data_dim is None else len(plates) + structure.data_dim
    return [size for plate, size in enumerate(plates) if plate != data]


def _support(name: str, d: TorchDistribution) -> constraints.Constraint:
    if isinstance(d, MixtureSameFamily):  # its own constraint has no bijection in torch
        return _support(name, d.component_distribution)
    support = d.support
    assert support is not None
    if support.is_discrete:
        raise InputError(
            "continuous latent sites, or discrete ones that are enumerated",
            f"the discrete site {name!r}, which is sampled",
            'enumerate it in the guide: pyro.sample(…, infer={"enumerate": "parallel"})',
        )
    return support

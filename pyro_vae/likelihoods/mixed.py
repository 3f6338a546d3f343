r"""The likelihood of tables: each column has its own, and a row's is their product.

    log p(x | z) = sum_d log p_d(x_d | eta_d(z)).

A column whose likelihood is on the real line (``gaussian``, ``laplace``) is standardized inside, by the mean m and the
standard deviation s of the training rows, and has a scale of its own: x = m + s (eta + sigma e), so that its density,
log p((x - m) / s) - log s, is that of x in the column's own units.  Of counts the decoder puts out the logarithm of
the mean above the training rows' level.  So the log-likelihood of a row is a density in the real columns and a
probability in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.columns import Column, SeenColumns
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood
from pyro_vae.likelihoods.seen_pixels import SeenPixels
from pyro_vae.likelihoods.standardized import InUnits
from pyro_vae.registry import parse_choice


class ColumnSupports(constraints.Constraint):
    """The values that the columns of a row can take, each its own.

    Args:
        supports: of groups of columns.
        places: which columns each group is of.

    Example:
        >>> from torch.distributions import constraints
        >>> from pyro_vae.likelihoods import ColumnSupports
        >>> support = ColumnSupports([constraints.boolean, constraints.real], [torch.tensor([1]), torch.tensor([0])])
        >>> support.check(torch.tensor([[0.5, 0.5], [0.5, 1.0]]))
        tensor([[ True, False],
                [ True,  True]])
    """

    def __init__(self, supports: Sequence[constraints.Constraint], places: Sequence[Tensor]) -> None:
        self.supports, self.places = supports, places
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        fits = [support.check(value[..., at]) for support, at in zip(self.supports, self.places, strict=True)]
        return _in_order(fits, self.places)


class Columns(dist.TorchDistribution):
    """Independent columns of a row, in groups of one distribution each.

    Args:
        parts: the distributions of the groups, of batch shape (..., number of columns).
        places: which columns each is of.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.likelihoods import Columns
        >>> coin, normal = dist.Bernoulli(torch.tensor([0.5])), dist.Normal(torch.zeros(1), 1.0)
        >>> Columns([coin, normal], [torch.tensor([1]), torch.tensor([0])]).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.9189, -0.6931])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, parts: Sequence[dist.TorchDistribution], places: Sequence[Tensor]) -> None:
        self.parts, self.places = parts, places
        size = sum(map(len, places))
        super().__init__(torch.Size((*parts[0].batch_shape[:-1], size)), validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return ColumnSupports([cast(constraints.Constraint, part.support) for part in self.parts], self.places)

    @property
    def mean(self) -> Tensor:
        return _in_order([part.mean for part in self.parts], self.places)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Columns:
        rows = tuple(batch_shape)[:-1]
        return Columns(
            [part.expand((*rows, len(at))) for part, at in zip(self.parts, self.places, strict=True)], self.places
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return _in_order([part.sample(torch.Size(sample_shape)) for part in self.parts], self.places)

    def log_prob(self, value: Tensor) -> Tensor:
        scores = [part.log_prob(value[..., at]) for part, at in zip(self.parts, self.places, strict=True)]
        return _in_order(scores, self.places)

    def log_prob_of_seen(self, value: Tensor, missing: Tensor) -> Tensor:
        """The log-probability of each entry, 0 where it is missing, NaN."""
        return Columns([SeenPixels(part) for part in self.parts], self.places).log_prob(value)


def _in_order(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Groups of columns, of shape (..., number of columns), put together in the order of the columns."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    whole = torch.cat([part.expand(*shape, -1) for part in parts], -1)
    return whole[..., torch.cat(list(places)).argsort()]


@LIKELIHOODS.register("mixed")
class Mixed(Likelihood):
    """Columns of a table, each with the likelihood that fits its values, or that was chosen for it.

    Args:
        event_shape: the shape of one datum, (D,).
        columns: what is known of the columns; default: numbers, each normal with a scale of its own.

    Raises:
        InputError: if the data are not rows of a table.

    Example:
        >>> from pyro_vae.columns import Column
        >>> from pyro_vae.likelihoods import Mixed
        >>> columns = Column("height", location=170.0, spread=10.0), Column("color", "categorical", "text", ("a", "b"))
        >>> likelihood = Mixed((2,), columns)
        >>> likelihood.params_shape, likelihood.seen_shape
        ((3,), (3,))
        >>> likelihood(torch.zeros(3)).log_prob(torch.tensor([170.0, 1.0])).exp()  # half a density of 0.04 per unit
        tensor(0.0199, grad_fn=<ExpBackward0>)
    """

    def __init__(self, event_shape: tuple[int, ...], columns: Sequence[Column] | None = None) -> None:
        super().__init__(event_shape)
        if len(event_shape) != 1:
            raise InputError(
                "rows of a table for the likelihood 'mixed'", f"data of shape {event_shape}", "leave out --likelihood"
            )
        columns = columns or [Column(str(place)) for place in range(event_shape[0])]
        self.columns = tuple(columns)
        self.seen = SeenColumns(self.columns)
        groups: dict[tuple[str, int], list[int]] = {}
        for place, column in enumerate(self.columns):
            groups.setdefault((_choice(column), len(column.categories)), []).append(place)
        self.parts = nn.ModuleList(_Group(choice, places, self.columns) for (choice, _), places in groups.items())

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (sum(part.num_params for part in self._groups),)

    @property
    def seen_shape(self) -> tuple[int, ...]:
        return (self.seen.size,)

    @property
    def _groups(self) -> list[_Group]:
        return [cast(_Group, part) for part in self.parts]

    def view(self) -> nn.Module:
        return self.seen

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        groups = self._groups
        each = params.split([part.num_params for part in groups], -1)
        parts = [part(own) for part, own in zip(groups, each, strict=True)]
        return dist.Independent(Columns(parts, [part.places for part in groups]), 1)

    def supports(self) -> dict[str, constraints.Constraint]:
        """The values that each column can take, by its name."""
        found: dict[int, constraints.Constraint] = {}
        for part in self._groups:
            support = cast(constraints.Constraint, part(torch.zeros(part.num_params)).support)
            found |= dict.fromkeys(part.places.tolist(), support)
        return {column.name: found[place] for place, column in enumerate(self.columns)}


class _Group(nn.Module):
    """The columns of one likelihood."""

    places: Tensor
    location: Tensor
    spread: Tensor

    def __init__(self, choice: str, places: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        mine = [columns[place] for place in places]
        self.likelihood = LIKELIHOODS.build(choice, event_shape=(len(mine),), scales="each")
        self.num_params = self.likelihood.params_shape[0]
        for name, values in {
            "places": list(places),
            "location": [column.location for column in mine],
            "spread": [column.spread for column in mine],
        }.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self._is_logarithmic = all(column.logarithmic for column in mine)
        self._is_real = self._entries(torch.zeros(self.num_params)).support is constraints.real

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        if self._is_logarithmic:
            return self._entries(params + self.location)
        entries = self._entries(params)
        return InUnits(entries, self.location, self.spread) if self._is_real else entries

    def _entries(self, params: Tensor) -> dist.TorchDistribution:
        p = self.likelihood(params)
        if not isinstance(p, dist.Independent) or p.base_dist.event_shape:
            raise InputError(
                "a likelihood of independent entries for each column",
                f"{type(self.likelihood).__name__}, whose entries depend on each other",
                "choose another one for those columns",
            )
        return p.base_dist


def _choice(column: Column) -> str:
    """The likelihood of a column, with the number of its categories where it has any."""
    name, options = parse_choice(column.likelihood)
    return f"{name}:values={len(column.categories)}" if name == "categorical" and not options else column.likelihood

"""What is known of the columns of a table, and how networks see them.

A column of numbers or of truth values is what it is; one of categories is a column of codes 0, 1, …, K - 1, whose
meanings are its ``categories``.  Networks see numbers standardized, (x - location) / spread, counts by their logarithm,
log (1 + x), standardized, and a category as K indicators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Category = str | int | float | bool
Kind = Literal["float", "integer", "boolean", "text", "category"]
MOST_CATEGORIES = 1000  # of a column: each is an input and an output of the networks


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: what it is called.
        likelihood: the one that its values have, as it is chosen by text.
        kind: what its values are in a table.
        categories: what its codes mean; empty where its values are numbers or truth values.
        logarithmic: whether networks see log (1 + x).
        location: the mean of what is seen among the training rows.
        spread: its standard deviation.
        is_covariate: whether it is given, not modelled.

    Example:
        >>> from pyro_vae.columns import Column
        >>> color = Column("color", "categorical", "text", ("blue", "green", "red"))
        >>> color.num_seen, Column("weight", location=70.0, spread=12.0).num_seen
        (3, 1)
    """

    name: str
    likelihood: str = "gaussian"
    kind: Kind = "float"
    categories: tuple[Category, ...] = ()
    logarithmic: bool = False
    location: float = 0.0
    spread: float = 1.0
    is_covariate: bool = False

    @property
    def num_seen(self) -> int:
        """The count of numbers that networks see of it."""
        return len(self.categories) or 1


class SeenColumns(nn.Module):
    """Rows of a table as networks see them.

    Args:
        columns: the columns.

    Attributes:
        size: the numbers per row.

    Example:
        >>> from pyro_vae.columns import Column, SeenColumns
        >>> seen = SeenColumns([Column("weight", location=70.0, spread=10.0), Column("color", categories=("a", "b"))])
        >>> seen(torch.tensor([[60.0, 1.0], [75.0, 0.0]]))
        tensor([[-1.0000,  0.0000,  1.0000],
                [ 0.5000,  1.0000,  0.0000]])
    """

    places: Tensor
    codes: Tensor
    logarithmic: Tensor
    location: Tensor
    spread: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        sources = [(place, code) for place, column in enumerate(columns) for code in _codes(column)]
        self.size = len(sources)
        of = [columns[place] for place, _ in sources]
        self._keep("places", [place for place, _ in sources])
        self._keep("codes", [torch.nan if code is None else float(code) for _, code in sources])
        self._keep("logarithmic", [column.logarithmic for column in of])
        self._keep("location", [column.location for column in of])
        self._keep("spread", [column.spread for column in of])

    def _keep(self, name: str, values: Sequence[float]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The view of x of shape (..., D), shape (..., size); of a missing category, NaN, all indicators are 0."""
        values = x[..., self.places]
        numbers = torch.where(self.logarithmic, values.clamp(min=0).log1p(), values)
        indicators = (values == self.codes).to(x.dtype)
        return torch.where(self.codes.isnan(), (numbers - self.location) / self.spread, indicators)


def _codes(column: Column) -> Sequence[int | None]:
    return range(len(column.categories)) if column.categories else [None]

"""Rows of tables: whether their values are such as the likelihoods of their columns are for, and covariates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_vae.columns import Column
from pyro_vae.data.pixels import UNKNOWN_CODE, Array, Reading
from pyro_vae.data.tables import read_table
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Categorical, Mixed

Supports = Sequence[constraints.Constraint | None]


def numbers_of(x: Any, columns: Sequence[Column]) -> Array:
    """The numbers of a table that has these columns, in their order, NaN where one is missing.

    Raises:
        InputError: if one is not there, or a value has no code.
    """
    return read_table(x, "x", Reading(label_column="none", known=tuple(columns))).x


def covariates_of(x: Any, columns: Sequence[Column]) -> Tensor:
    """Rows of all columns, of which the covariates are those of a table and the others 0, shape (N, D).

    Raises:
        InputError: if a covariate is not there, or has no value.
    """
    given = [column for column in columns if column.is_covariate]
    numbers = torch.from_numpy(numbers_of(x, given)).to(torch.get_default_dtype())
    check_given(numbers, given)
    return torch.cat([numbers.new_zeros(len(numbers), len(columns) - len(given)), numbers], 1)


def check_given(values: Tensor, columns: Sequence[Column]) -> None:
    """Refuse rows without a value of a covariate.

    Raises:
        InputError: if there is one.
    """
    for place, column in enumerate(columns):
        if column.is_covariate and values[:, place].isnan().any():
            raise InputError(
                f"a value of the covariate {column.name!r} in every row", "some that are missing", "fill them"
            )


def supports_of(model: Any, columns: Sequence[Column]) -> Supports:
    """The values that each column can take; None where any number can be."""
    likelihood = getattr(model, "likelihood", None)
    own = likelihood.supports() if isinstance(likelihood, Mixed) else {}
    return [_codes(column) if column.is_covariate else own.get(column.name) for column in columns]


def _codes(column: Column) -> constraints.Constraint | None:
    return constraints.integer_interval(0, len(column.categories) - 1) if column.categories else None


def check_columns(parts: Iterable[Tensor], columns: Sequence[Column], supports: Supports, name: str) -> None:
    """Refuse values that a column's likelihood is not for.

    Args:
        parts: rows of shape (N, D), NaN where a value is missing.
        columns: what is known of the columns.
        supports: the values that each can take.
        name: what to call the rows.

    Raises:
        InputError: if there is one, named with its column.
    """
    for values in parts:
        for place, (column, support) in enumerate(zip(columns, supports, strict=True)):
            there = values[:, place][~values[:, place].isnan()]
            if support is None or (fits := support.check(there)).all():
                continue
            what = f"codes from 0 to {len(column.categories) - 1}" if column.categories else "values"
            raise InputError(
                f"{what} of the column {column.name!r} of {name} that its likelihood {column.likelihood} is for",
                f"{there[~fits][0].item():g}",
                f"change them, or fit with another: --columns '{column.name}=gaussian'",
            )


def with_codes(values: Tensor, model: Any, has_missing: bool) -> Tensor:
    """Rows of arrays, NaN in the place of codes of -1 where the likelihood is of categories and values may be missing.

    Raises:
        InputError: if another value is not a code.
    """
    likelihood = getattr(model, "likelihood", None)
    if not isinstance(likelihood, Categorical):
        return values
    values = values.masked_fill(values == UNKNOWN_CODE, torch.nan) if has_missing else values
    there = values[~values.isnan()]
    fits = constraints.integer_interval(0, likelihood.values - 1).check(there)
    if not fits.all():
        raise InputError(
            f"codes from 0 to {likelihood.values - 1} in x, as the run was fitted on",
            f"{there[~fits][0].item():g}",
            "leave those rows out, or fit again with them",
        )
    return values

"""The columns of a table: which likelihood fits each, and its values as numbers.

| a column of | has the likelihood |
|---|---|
| truth values, or numbers that are all 0 or 1 | ``bernoulli`` |
| text, or pandas' categories | ``categorical`` |
| integers of at most ten different values, none negative | ``categorical`` |
| other integers, none negative, with a variance of at least their mean | ``negative_binomial`` |
| other numbers | ``gaussian`` |

Counts given z vary at least as much as their mean, so that integers which vary less, such as years, are not counts.
What a column is said to have goes before the rule; ``drop`` leaves it out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pyro_vae.columns import MOST_CATEGORIES, Category, Column, Kind
from pyro_vae.data.pixels import Array, Reading
from pyro_vae.errors import InputError, nearest
from pyro_vae.registry import parse_choice

MOST_CODES = 10  # different values of integers that are categories
COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
MOST_GRADES = 10  # different texts that may all be numbers, such as those of grades
MOST_SHOWN = 6  # categories in a message
LEAST_SPREAD = 1e-6  # of numbers, as a share of the largest: eight steps of what 32 bits tell apart
_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?([eE][+-]?\d+)?")
_KINDS: Mapping[str, Kind] = {
    "boolean": "boolean",
    "integer": "integer",
    "floating": "float",
    "mixed-integer-float": "float",
    "decimal": "float",
    "string": "text",
    "categorical": "category",
}


def read_columns(frame: pd.DataFrame, name: str, reading: Reading) -> tuple[Array, tuple[Column, ...]]:
    """The values of a table's columns as numbers, shape (N, D), NaN where one is missing, covariates last.

    Args:
        frame: the table, without labels.
        name: what to call it.
        reading: what columns are said to have, which are covariates, and what is known of them already.

    Returns:
        The values, and what is known of the columns but for the moments that ``with_moments`` adds.

    Raises:
        InputError: if a column is not there, or has no likelihood that fits it, or a value has no code.
    """
    frame = frame.infer_objects()
    frame.columns = pd.Index([str(column) for column in frame.columns])
    columns = columns_of(frame, name, reading)
    return codes_of(frame, columns, name), columns


def columns_of(frame: Any, name: str, reading: Reading) -> tuple[Column, ...]:
    """What is known of the columns of a table but for their moments; arguments as for ``read_columns``.

    Args:
        frame: the table, or something that has ``columns`` and gives each by its name.
        name: what to call it.
        reading: what columns are said to have, which are covariates, and what is known of them already.

    Raises:
        InputError: if a column is not there, or has no likelihood that fits it.
    """
    twice = [column for column, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise InputError(f"columns of different names in {name}", f"several {twice[0]!r}", "rename them, or drop one")
    if not reading.known:
        return _described(frame, name, reading)
    _check_there(frame, [column.name for column in reading.known], name, "that the run was fitted on")
    return reading.known


def codes_of(frame: pd.DataFrame, columns: Sequence[Column], name: str) -> Array:
    """The values of columns as numbers, shape (N, D), NaN where one is missing.

    Raises:
        InputError: if a value has no code.
    """
    return np.stack([_codes(frame[column.name], column, name) for column in columns], 1)


def with_moments(columns: Sequence[Column], train: Tensor, missing: Tensor | None, name: str) -> tuple[Column, ...]:
    """The columns with the mean and the spread of what networks see of the training rows.

    Raises:
        InputError: if a column of numbers is the same in all of these.
    """
    found: list[Column] = []
    for place, column in enumerate(columns):
        values = train[:, place].double()
        values = values if missing is None else values[~missing[:, place]]
        moments = Moments([column])
        moments.see(values[:, None].numpy())
        found += moments.of(name)
    return tuple(found)


class Moments:
    """The means and spreads of what networks see of columns, of rows that come by blocks.

    Two lots of rows are added as Chan et al. 1979 add their means and squares.

    Args:
        columns: the columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns, self._count = columns, 0
        self._mean, self._squares, self._size, self._first = (np.zeros(len(columns)) for _ in range(4))

    def see(self, values: Array) -> None:
        """Add rows of shape (N, D), none of whose values is missing."""
        if not len(values):
            return
        seen = values.astype(np.float64)
        for place, column in enumerate(self._columns):
            if column.logarithmic:
                seen[:, place] = np.log1p(np.maximum(seen[:, place], 0))
        if not self._count:
            self._first = values[0]
        mean, total = seen.mean(0), self._count + len(seen)
        shift = mean - self._mean
        self._squares = self._squares + ((seen - mean) ** 2).sum(0) + shift**2 * (self._count * len(seen) / total)
        self._mean, self._count = self._mean + shift * (len(seen) / total), total
        self._size = np.maximum(self._size, np.abs(seen).max(0))

    def of(self, name: str) -> tuple[Column, ...]:
        """The columns with these moments.

        Raises:
            InputError: if a column of numbers is the same in all rows.
        """
        return tuple(self._with_moments(column, place, name) for place, column in enumerate(self._columns))

    def _with_moments(self, column: Column, place: int, name: str) -> Column:
        spread = math.sqrt(self._squares[place] / self._count) if self._count else 0.0
        if column.categories:
            return column
        if not spread > 0 and column.likelihood != "bernoulli":
            has_any = bool(self._count)
            shown = f"{self._first[place]:g} in every training row" if has_any else "no value in any training row"
            raise _constant(column.name, name, shown)
        if (size := self._size[place]) * LEAST_SPREAD > spread > 0:
            raise InputError(
                f"numbers in the column {column.name!r} of {name} that 32 bits tell apart",
                f"a spread of {spread:g} around {size:g}",
                "subtract their mean, or start from another origin",
            )
        return replace(column, location=float(self._mean[place]), spread=spread or 1.0)


def describe_columns(columns: Sequence[Column]) -> str:
    """What the columns are, in words: ``3 columns: 2 gaussian, 1 categorical``."""
    own = [column for column in columns if not column.is_covariate]
    counts = Counter(parse_choice(column.likelihood)[0] for column in own)
    words = ", ".join(f"{count} {likelihood}" for likelihood, count in counts.most_common())
    given = [column.name for column in columns if column.is_covariate]
    also = f", given {', '.join(given)}" if given else ""
    return f"{len(own)} column{'' if len(own) == 1 else 's'}: {words}{also}"


def table_of(values: Tensor, columns: Sequence[Column], index: Any = None) -> pd.DataFrame:
    """Rows of numbers as a table: categories by their names, truth values and whole numbers as such.

    A probability of a truth value becomes the more probable one.

    Args:
        values: shape (N, D), NaN where one is missing.
        columns: what they are.
        index: of the rows; default: their numbers.

    Example:
        >>> from pyro_vae.columns import Column
        >>> from pyro_vae.data import table_of
        >>> columns = Column("height"), Column("color", "categorical", "text", ("blue", "red"))
        >>> table_of(torch.tensor([[1.5, 1.0], [2.5, 0.0]]), columns)
           height color
        0     1.5   red
        1     2.5  blue
    """
    array = values.detach().cpu().double().numpy()
    return pd.DataFrame({c.name: _series(array[:, place], c) for place, c in enumerate(columns)}).set_axis(
        pd.RangeIndex(len(array)) if index is None else index
    )


def _series(values: Array, column: Column) -> Any:
    missing = np.isnan(values)
    if column.categories:
        codes = np.where(missing, -1, values).astype(int)
        if column.kind == "category":
            return pd.Categorical.from_codes(codes, categories=list(column.categories))
        named = np.array([*column.categories, None], dtype=object)[codes]
        series = pd.Series(named.tolist())
        return series.astype("Int64") if column.kind == "integer" and missing.any() else series
    if column.likelihood == "bernoulli":
        values = np.where(missing, np.nan, values >= 0.5)
    if column.kind == "float" or not (values[~missing] == np.rint(values[~missing])).all():
        return values
    kind = "boolean" if column.kind == "boolean" else "Int64"
    series = pd.array(np.where(missing, 0, values).astype(np.int64), dtype="Int64").astype(kind)
    if not missing.any():
        return series.to_numpy(dtype=bool if column.kind == "boolean" else np.int64)
    series[missing] = pd.NA
    return series


def _described(frame: pd.DataFrame, name: str, reading: Reading) -> tuple[Column, ...]:
    """What is found out about the columns of a table that is seen for the first time, covariates last."""
    told = dict(reading.columns)
    _check_there(frame, list(told), name, "that a likelihood was chosen for")
    _check_there(frame, list(reading.covariates), name, "that is a covariate")
    raw = reading.likelihood if reading.likelihood not in ("auto", "mixed") else ""
    own = [c for c in frame.columns if c not in reading.covariates and told.get(c) != "drop"]
    if not own:
        raise InputError(f"columns of {name} to model", "none but covariates", "leave some out of --covariates")
    columns = [_column(frame[column], name, told.get(column, raw)) for column in own]
    given = [replace(_column(frame[c], name, told.get(c, "")), is_covariate=True) for c in reading.covariates]
    for column in given:
        if frame[column.name].isna().any():
            raise InputError(
                f"a value of the covariate {column.name!r} in every row of {name}", "some that are missing", "fill them"
            )
    return (*columns, *given)


def _check_there(frame: pd.DataFrame, wanted: Sequence[str], name: str, what: str) -> None:
    for column in wanted:
        if column not in frame.columns:
            near = nearest(column, list(frame.columns))
            raise InputError(f"a column {column!r} of {name}, {what}", "none of that name", near)


def _column(series: pd.Series, name: str, told: str) -> Column:
    """One column: what its values are, and the likelihood that it is said to have, or that fits."""
    title = str(series.name)
    kind, values = _known_values(series, name)
    likelihood, options = parse_choice(told)
    is_named = kind in ("text", "category")
    if told and likelihood != "categorical":
        if is_named:
            raise InputError(
                f"numbers in the column {title!r} of {name} for {told}", "text", f"use {title}=categorical"
            )
        return Column(title, told, kind, logarithmic=likelihood in COUNTS)
    different: list[Category] = pd.unique(values).tolist()
    different = sorted(different, key=lambda value: (isinstance(value, str), value))
    if kind == "category":
        different = [_plain(category) for category in series.cat.categories]
    elif options.get("values", "").isdecimal():
        different = list(range(int(options["values"])))
    fitting = likelihood if told else _fitting(kind, values.to_numpy(), different)
    if kind == "text" and not told:
        _check_text(different, len(values), title, name)
    if len(different) < 2 or (not is_named and values.nunique() < 2):
        raise _constant(title, name, f"{different[0]!r} in every row")
    if fitting != "categorical":
        return Column(title, fitting, kind, logarithmic=fitting in COUNTS)
    if len(different) > MOST_CATEGORIES:
        raise InputError(
            f"at most {MOST_CATEGORIES:,} categories in the column {title!r} of {name}",
            f"{len(different):,}",
            f"group them, or leave the column out: --columns '{title}=drop'",
        )
    return Column(title, "categorical", kind, tuple(different))


def _known_values(series: pd.Series, name: str) -> tuple[Kind, pd.Series]:
    """What the values of a column are, and those that are there."""
    title = str(series.name)
    values = _without_gaps(series)
    if not len(values):
        raise InputError(f"values in the column {title!r} of {name}", "none: all are missing", _drop(title))
    found = "categorical" if isinstance(series.dtype, pd.CategoricalDtype) else pd.api.types.infer_dtype(values)
    if found not in _KINDS:
        is_mixed = found.startswith("mixed")
        types = sorted({type(value).__name__ for value in values.head(1000).tolist()})
        shown = f"values of several types ({', '.join(types[:3])})" if is_mixed else f"values of type {found}"
        mend = "make them text, column.astype(str), or numbers" if is_mixed else "give numbers, such as days or years"
        raise InputError(
            f"numbers, truth values, text or categories in the column {title!r} of {name}",
            shown,
            f"{mend}, or leave it out: --columns '{title}=drop'",
        )
    return _KINDS[found], values.map(_plain) if values.dtype == object else values


def _without_gaps(series: pd.Series) -> pd.Series:
    values = series[series.notna()]
    if isinstance(values.dtype, np.dtype) and values.dtype != object:
        return values
    values = values.astype(object)
    return values[values.map(lambda value: not (isinstance(value, str) and value == ""))]


def _plain(value: Any) -> Category:
    """A value as JSON knows it."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | str):
        return value
    return float(value) if isinstance(value, float) or type(value).__name__ == "Decimal" else str(value)


def _fitting(kind: Kind, values: Array, different: Sequence[Category]) -> str:
    if kind in ("text", "category"):
        return "categorical"
    numbers = values.astype(float)
    if kind == "boolean" or np.isin(numbers, (0, 1)).all():
        return "bernoulli"
    if kind != "integer" or numbers.min() < 0:
        return "gaussian"
    if len(different) <= MOST_CODES:
        return "categorical"
    return "negative_binomial" if numbers.var() >= numbers.mean() else "gaussian"


def _check_text(different: Sequence[Category], count: int, title: str, name: str) -> None:
    """Refuse text that is numbers, or a name of each row."""
    texts = [str(text) for text in different]
    numbers = [text for text in texts if text.strip() and _NUMBER.fullmatch(text.strip())]
    if len(texts) > MOST_GRADES and 2 * len(numbers) > len(texts):
        others = [text for text in texts if text not in numbers]
        strange = others[0] if others else next((text for text in numbers if "," in text), numbers[0])
        mend = "write them without commas" if "," in strange else "use .astype(float)"
        mend = "leave those cells empty" if others else mend
        raise InputError(
            f"numbers in the column {title!r} of {name}, as most of it is",
            f"text, such as {strange!r}",
            f"{mend}, or --columns '{title}=categorical' if these are categories",
        )
    if len(texts) == count:
        raise InputError(
            f"text that repeats in the column {title!r} of {name}, as categories do",
            f"{count} texts that all differ",
            f"leave it out: --columns '{title}=drop'",
        )


def _constant(title: str, name: str, shown: str) -> InputError:
    return InputError(f"a column {title!r} of {name} that varies", shown, _drop(title))


def _drop(title: str) -> str:
    return f"leave it out: --columns '{title}=drop'"


def _codes(series: pd.Series, column: Column, name: str) -> Array:
    """The values of a column as numbers, NaN where one is missing."""
    numbers = np.full(len(series), np.nan)
    values = _without_gaps(series.reset_index(drop=True))
    there = values.index.to_numpy()
    if column.categories:
        codes = {category: code for code, category in enumerate(column.categories)}
        try:
            numbers[there] = [codes[_plain(value)] for value in values]
        except KeyError as error:
            known = ", ".join(map(repr, column.categories[:MOST_SHOWN]))
            more = ", …" if len(column.categories) > MOST_SHOWN else ""
            raise InputError(
                f"a value of the column {column.name!r} of {name} that is known: {known}{more}",
                repr(error.args[0]),
                "leave those rows out, or the cells empty (with --missing mask)",
            ) from None
        return numbers
    try:
        numbers[there] = pd.to_numeric(values).to_numpy(dtype=np.float64)
    except (ValueError, TypeError):
        strange = next(value for value in values if not isinstance(value, int | float | np.number))
        raise InputError(
            f"numbers in the column {column.name!r} of {name}", repr(strange), "give numbers, or empty cells"
        ) from None
    return numbers

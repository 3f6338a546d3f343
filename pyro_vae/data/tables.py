"""Tables with named columns: pandas and polars frames, ``.csv``, ``.tsv`` and ``.parquet`` files.

One column may be the labels: the one that is named so, or else the one that is called label, class, target or y.  All
others are data, a row per datum; ``data.columns`` says what becomes of each.  A frame's index is not a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_vae.columns import Column
from pyro_vae.data.columns import read_columns
from pyro_vae.data.pixels import Array, Reading, are_pixels, are_whole
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
LABEL_COLUMNS = ("label", "class", "target", "y")
NUMBERS = ("boolean", "integer", "floating", "mixed-integer-float")  # as pandas calls them
MOST_NAMED = 4  # columns in a message
READ = Reading()
NUMBERS_ALONE = Reading(likelihood="none", label_column="none")


def is_table(data: Any) -> bool:
    """Whether data have named columns."""
    if isinstance(data, np.ndarray):
        return data.dtype.names is not None
    is_foreign = type(data).__module__.partition(".")[0] in ("polars", "pyarrow") and hasattr(type(data), "columns")
    return isinstance(data, pd.DataFrame) or is_foreign


def read_table_file(path: Path) -> pd.DataFrame:
    """The table in a file.

    Raises:
        InputError: if it cannot be read, or pyarrow is needed and not there.
    """
    what = f"a table in {path}"
    try:
        check_ordinary(path)
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return _read_text(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    except FileNotFoundError:
        raise InputError(what, "no such file", "check the path") from None
    except ImportError:
        raise InputError(
            f"pyarrow, to read {path}", "none installed", "pip install pyarrow, or pip install 'pyro-vae[tables]'"
        ) from None
    except Exception as error:  # of any kind, from pandas and the readers below it
        raise InputError(
            what, f"a file that pandas refuses ({first_line(error)})", "write one with frame.to_csv(path, index=False)"
        ) from error


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    frame = _read_csv(path, separator)
    if frame.shape[1] == 1 and ";" in str(frame.columns[0]):
        separator = ";"
        frame = _read_csv(path, separator)
    if len(frame.columns) and all(map(_is_number, frame.columns)):  # a file without a header
        frame = _read_csv(path, separator, header=None)
    first = frame.columns[0] if frame.shape[1] > 1 else None
    if first is not None and str(first).startswith("Unnamed") and frame[first].tolist() == list(range(len(frame))):
        frame = frame.drop(columns=first)  # the index, which to_csv writes unless it is told not to
    return frame


def _read_csv(path: Path, separator: str, **options: Any) -> pd.DataFrame:
    """The table in a text file, integers staying integers where some cells are empty."""
    return pd.read_csv(path, sep=separator, dtype_backend="numpy_nullable", **options)


def _is_number(name: Any) -> bool:
    try:
        float(str(name))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Args:
        x: its numbers, shape (N, D), NaN where one is missing.
        labels: its column of labels, or None.
        columns: what its columns are, where each has a likelihood of its own or some are covariates.
    """

    x: Array
    labels: Any = None
    columns: tuple[Column, ...] = ()


def read_table(table: Any, name: str, reading: Reading = READ) -> Table:
    """What a table of pandas or polars holds.

    Args:
        table: the table.
        name: what to call it.
        reading: what is not to be found out.

    Raises:
        InputError: if there is no such column of labels, or several may be it, or another one cannot be read.
    """
    frame = _as_frame(table)
    label = label_column([str(column) for column in frame.columns], name, reading)
    labels = None if label is None else frame.iloc[:, label]
    if label is not None:
        frame = frame.iloc[:, [place for place in range(frame.shape[1]) if place != label]]
    if not frame.shape[1]:
        raise InputError(f"columns of numbers in {name}", "none", "give a table with features")
    if _by_columns(frame, reading):
        x, columns = read_columns(frame, name, reading)
        return Table(x, labels, columns)
    return Table(numbers_of_table(frame, name), labels)


def _by_columns(frame: pd.DataFrame, reading: Reading) -> bool:
    """Whether each column is looked at by itself; a table of pictures is a table of pixels."""
    told = told_by_columns(reading)
    if told is not None:
        return told
    columns = [frame.iloc[:, place].infer_objects() for place in range(frame.shape[1])]
    if not all(_arenumbers_of_table(column.dtype) for column in map(_with_gaps, columns)):
        return True
    values = numbers_of_table(frame, "x")
    seen = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not seen.size or np.isin(seen, (0, 1)).all():
        return False
    return not (are_pixels(values.shape[1:]) and seen.min() >= 0 and (seen.max() <= 1 or are_whole(seen)))


def told_by_columns(reading: Reading) -> bool | None:
    """Whether each column is looked at by itself, where that does not depend on what they hold; None where it does."""
    if reading.known or reading.columns or reading.covariates or reading.likelihood == "mixed":
        return True
    if reading.likelihood != "auto" or reading.scale is not None or not reading.pictures:
        return False
    return None


def numbers_of_table(frame: pd.DataFrame, name: str) -> Array:
    """The numbers of a table that holds nothing else.

    Raises:
        InputError: if a column holds something else.
    """
    frame = frame.infer_objects().apply(_with_gaps)
    types = [frame.iloc[:, place].dtype for place in range(frame.shape[1])]
    wrong = [str(c) for c, t in zip(frame.columns, types, strict=True) if not _arenumbers_of_table(t)]
    if wrong:
        named = ", ".join(map(repr, wrong[:MOST_NAMED])) + (", …" if len(wrong) > MOST_NAMED else "")
        raise InputError(
            f"columns of numbers in {name}",
            f"{len(wrong)} of {len(types)} that hold text or dates: {named}",
            "drop them, or use --likelihood mixed, which has categories, or "
            f"--label-column {wrong[0]} if these are the labels",
        )
    whole = all(pd.api.types.is_integer_dtype(t) or pd.api.types.is_bool_dtype(t) for t in types)
    if whole and not frame.isna().any(axis=None):
        kinds = {np.dtype(str(t).lower()) if str(t).lower() != "boolean" else np.dtype(bool) for t in types}
        return frame.to_numpy(dtype=np.result_type(*kinds) if len(kinds) > 1 else kinds.pop())
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def labels_of_table(column: pd.Series) -> tuple[Array, tuple[str, ...]]:
    """Labels out of a column, and the names of the classes where they are categories, in their order."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = column.cat.categories
        if not any(each == "" or str(each) in ("-1", "-1.0") for each in names):
            return column.cat.codes.to_numpy(), tuple(map(str, names))
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy(), ()
    return column.to_numpy(dtype=object), ()


def _with_gaps(column: pd.Series) -> pd.Series:
    """Numbers and truth values that came as objects, for some are missing, as floats; other columns as they are."""
    if column.dtype != object or pd.api.types.infer_dtype(column, skipna=True) not in NUMBERS:
        return column
    return pd.to_numeric(column.where(column.notna(), np.nan).astype(float))


def label_column(columns: list[str], name: str, reading: Reading) -> int | None:
    """Where the labels are; a column of their usual names that is said to be something else is none of them."""
    wanted = reading.label_column
    if wanted == "none":
        return None
    if wanted != "auto":
        if columns.count(wanted) != 1:
            found = "none of that name" if wanted not in columns else "several of that name"
            shown = ", ".join(columns[:8]) + (", …" if len(columns) > 8 else "")
            raise InputError(f"the column {wanted!r} of labels in {name}", found, f"choose one of: {shown}")
        return columns.index(wanted)
    others = {*reading.covariates, *reading.columns}
    found_places = [
        place for place, column in enumerate(columns) if column.lower() in LABEL_COLUMNS and column not in others
    ]
    if len(found_places) > 1:
        named = ", ".join(columns[place] for place in found_places)
        raise InputError(
            f"one column of labels in {name}", named, f"use --label-column {columns[found_places[0]]}, or none"
        )
    return found_places[0] if found_places else None


def _arenumbers_of_table(dtype: Any) -> bool:
    is_complex = pd.api.types.is_complex_dtype(dtype)
    return (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)) and not is_complex


def _as_frame(table: Any) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, np.ndarray):  # with named fields
        return pd.DataFrame.from_records(table)
    if type(table).__module__.partition(".")[0] == "pyarrow":
        return table.to_pandas()
    table = table.collect() if hasattr(table, "collect") else table  # a lazy one
    columns = {}
    for column in table.columns:  # of polars, whose own to_pandas needs pyarrow
        series = table[column]
        if series.dtype.is_integer() and series.null_count():
            columns[column] = pd.Series(series.to_list(), dtype="Int64")
        else:
            columns[column] = series.to_numpy() if series.dtype.is_numeric() else pd.Series(series.to_list())
    return pd.DataFrame(columns)

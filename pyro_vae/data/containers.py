"""Arrays out of what holds them: NumPy, torch, lists, pandas, polars, masked and sparse arrays, torch data sets.

A container knows of rows x, perhaps of labels y and of what is missing; ``unpack`` hands on plain NumPy arrays of
native byte order and says nothing of what their numbers mean.
"""

from __future__ import annotations

import array
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyro_vae.columns import Column
from pyro_vae.data.pixels import Array, Reading
from pyro_vae.data.tables import NUMBERS_ALONE, READ, is_table, labels_of_table, read_table
from pyro_vae.errors import InputError

if TYPE_CHECKING:
    from sklearn.utils import Bunch

MOST_NUMBERS = 2**33  # of a sparse array that is written out
MAY_HOLD = ("x", "y", "missing")


@dataclass(frozen=True)
class Arrays:
    """What a container holds.

    Args:
        x: numbers, a row per datum.
        y: labels, or None.
        missing: which numbers are missing, bool of the shape of x, or None.
        class_names: names of the classes, where labels are their numbers.
        columns: what the columns of a table are, where each has a likelihood of its own or some are covariates.
    """

    x: Array
    y: Array | None = None
    missing: Array | None = None
    class_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()


def unpack(data: Any, name: str, reading: Reading = READ) -> Arrays:
    """The arrays of whatever ``fit`` takes as data, but for paths and ``Dataset``.

    Args:
        data: an array, a table, a pair (x, y), a mapping with x and perhaps y and missing, what scikit-learn loads, a
            set or loader of torch.
        name: what to call the data.
        reading: how a table is to be read, where it is not to be found out.

    Raises:
        InputError: if it is none of these, or not numbers.
    """
    if not (is_table(data) or reading.label_column in ("auto", "none")):
        raise InputError(
            f"a table with a column {reading.label_column!r} of labels",
            "data without columns",
            "leave out --label-column",
        )
    if (
        isinstance(data, torch.utils.data.Dataset | torch.utils.data.DataLoader)
        or _has_rows_alone(data)
        or _is_list_of_rows(data)
    ):
        from pyro_vae.data.torch_sets import read_torch_set

        rows, labels, class_names = read_torch_set(data, name)
        return replace(_with_labels(rows, labels, name), class_names=class_names)
    if data is None:
        raise InputError("data", "None", "give an array, a table, or the name or path of a set")
    if is_bunch(data):
        return _of_bunch(data, name, reading)
    if isinstance(data, Mapping):
        return _of_mapping(data, name, reading)
    if is_table(data):
        table = read_table(data, name, reading)
        arrays = Arrays(table.x) if table.labels is None else _with_labels(table.x, table.labels, name)
        return replace(arrays, columns=table.columns)
    pair = _pair(data)
    if pair is not None:
        return _with_labels(*pair, name, reading)
    x, missing = as_numbers(data, f"x of {name}")
    return Arrays(x, missing=missing)


def is_bunch(data: Any) -> bool:
    """Whether it is what scikit-learn loads: a mapping of rows, their classes and words about them."""
    utils = sys.modules.get("sklearn.utils")  # whoever holds one has imported it, which takes a second
    return utils is not None and isinstance(data, utils.Bunch) and "data" in data


def _has_rows_alone(data: Any) -> bool:
    """Whether data are a set as torch has them by its methods alone: a length and rows, and no array of their own."""
    is_array = isinstance(data, Tensor | np.ndarray | memoryview | bytearray | array.array)
    is_other = is_array or isinstance(data, str | bytes | list | tuple | Mapping) or is_table(data)
    knows_shape = hasattr(data, "__array__") or hasattr(data, "nnz") or hasattr(data, "dtype")
    return not (is_other or knows_shape) and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _is_list_of_rows(data: Any) -> bool:
    """Whether it is a list of mappings, or of pairs of an image and its label, as a set of torch has them."""
    if not isinstance(data, list) or not data:
        return False
    first = data[0]
    is_pair = isinstance(first, tuple) and len(first) == 2 and not isinstance(first[0], int | float | str)
    return isinstance(first, Mapping) or (is_pair and np.ndim(first[0]) > np.ndim(first[1]) == 0)


def as_numbers(values: Any, what: str) -> tuple[Array, Array | None]:
    """An array of truth values or numbers, and which of them are masked, or None where none is.

    Raises:
        InputError: if it is text, complex, of several lengths, or something else.
    """
    if is_table(values):
        return read_table(values, what, NUMBERS_ALONE).x, None
    array, missing = _as_array(values, what)
    if array.dtype.kind == "O":
        array = _numbers_of_objects(array, what)
    if array.dtype.kind not in "buif":
        mend = "use .astype(float) if it is numbers as text" if array.dtype.kind in "US" else "give uint8 or float32"
        raise InputError(f"numbers in {what}", f"dtype {array.dtype}", mend)
    if array.dtype.itemsize > 8:  # longdouble, which torch has not
        array = array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False), missing


def _as_array(values: Any, what: str) -> tuple[Array, Array | None]:
    if isinstance(values, Tensor):
        tensor = values.detach()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        tensor = (
            (tensor.to_dense() if tensor.layout is not torch.strided else tensor).cpu().resolve_conj().resolve_neg()
        )
        narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64)
        return (tensor.float() if narrow else tensor).numpy(), None
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        return np.ma.getdata(values), mask if mask.any() else None
    if hasattr(values, "toarray") and hasattr(values, "nnz"):  # of SciPy, sparse
        if np.prod(values.shape, dtype=float) > MOST_NUMBERS:
            raise InputError(
                f"at most {MOST_NUMBERS:,} numbers in {what}", f"shape {values.shape}", "take fewer columns"
            )
        return values.toarray(), None
    if isinstance(values, list | tuple) and len(values) and not isinstance(values[0], list | tuple | int | float | str):
        return _stacked(values, what)
    try:
        return np.asarray(values), None
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].split(". The detected")[0]
        raise InputError(f"an array in {what}", reason, "give rows of one shape, as one array") from None


def _stacked(rows: Sequence[Any], what: str) -> tuple[Array, Array | None]:
    """A sequence of arrays, tensors or pictures of one shape."""
    parts = [_as_array(row, what) for row in rows]
    shapes = {array.shape for array, _ in parts}
    if len(shapes) > 1:
        first, second, *_ = sorted(shapes)
        raise InputError(f"rows of one shape in {what}", f"{first} and {second}", "bring them to one size")
    masks = [np.zeros(array.shape, bool) if mask is None else mask for array, mask in parts]
    return np.stack([array for array, _ in parts]), np.stack(masks) if any(m is not None for _, m in parts) else None


def _numbers_of_objects(array: Array, what: str) -> Array:
    """Numbers that came as objects, None and pandas.NA among them, as floats."""
    kinds = {type(value) for value in array.ravel().tolist()}
    if any(issubclass(kind, str | bytes | complex) for kind in kinds):
        raise InputError(f"numbers in {what}", "objects, some of them text", "give columns of numbers, as float32")
    try:
        return (
            pd.to_numeric(pd.Series(array.ravel(), dtype=object))
            .to_numpy(np.float64, na_value=np.nan)
            .reshape(array.shape)
        )
    except (ValueError, TypeError):
        names = ", ".join(sorted(kind.__name__ for kind in kinds)[:3])
        raise InputError(f"numbers in {what}", f"objects ({names})", "give one array of float32") from None


def as_labels(values: Any, what: str) -> tuple[Array, tuple[str, ...]]:
    """Labels as an array, and the names of the classes where it holds their numbers."""
    if is_table(values):
        frame = (
            values
            if isinstance(values, pd.DataFrame)
            else pd.DataFrame({c: values[c].to_list() for c in values.columns})
        )
        names = tuple(map(str, frame.columns)) if frame.shape[1] > 1 else ()
        return (frame.to_numpy() if names else frame.iloc[:, 0].to_numpy(dtype=object)), names
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return labels_of_table(pd.Series(values))
    if type(values).__module__.partition(".")[0] == "polars" and hasattr(values, "to_list"):
        values = values.to_list()
    if isinstance(values, list | tuple) and not any(
        isinstance(v, Tensor | np.ndarray | list | tuple) for v in values[:1]
    ):
        array = np.empty(len(values), dtype=object)  # not by NumPy, which makes text of ["cat", -1]
        array[:] = values
        return array, ()
    array, missing = _as_array(values, what)
    if missing is not None:
        array = array.astype(object)
        array[missing] = None
    return array, ()


def _with_labels(x: Any, y: Any, name: str, reading: Reading = NUMBERS_ALONE) -> Arrays:
    if isinstance(x, pd.DataFrame | pd.Series) and isinstance(y, pd.DataFrame | pd.Series):
        _check_order(x.index, y.index, name)
    if is_table(x):
        table = read_table(x, f"x of {name}", replace(reading, label_column="none"))
        arrays = Arrays(table.x, columns=table.columns)
    else:
        array, missing = as_numbers(x, f"x of {name}")
        arrays = Arrays(array, missing=missing)
    if y is None:
        return arrays
    labels, class_names = as_labels(y, f"y of {name}")
    return replace(arrays, y=labels, class_names=class_names)


def _check_order(first: pd.Index, second: pd.Index, name: str) -> None:
    """Refuse rows and labels of the same index in another order, which would be paired wrongly by their places."""
    if len(first) == len(second) and not first.equals(second) and first.is_unique and first.isin(second).all():
        raise InputError(
            f"x and y of {name} in the same order", "the same index in another order", "use y.reindex(x.index)"
        )


def _of_mapping(data: Mapping[Any, Any], name: str, reading: Reading) -> Arrays:
    if "x" not in data or not set(data) <= set(MAY_HOLD):
        keys = ", ".join(map(str, data)) or "nothing"
        raise InputError(f"x, and perhaps y and missing, in {name}", keys, 'give {"x": x, "y": y, "missing": mask}')
    arrays = _with_labels(data["x"], data.get("y"), name, reading)
    if data.get("missing") is None:
        return arrays
    mask, _ = as_numbers(data["missing"], f"missing of {name}")
    if mask.shape != arrays.x.shape or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"one truth value per number of x in missing of {name}, shape {arrays.x.shape}",
            f"shape {mask.shape}, dtype {mask.dtype}",
            "give x.isnan(), for example: true where a number is missing",
        )
    return replace(arrays, missing=mask.astype(bool) | (False if arrays.missing is None else arrays.missing))


def _of_bunch(data: Bunch, name: str, reading: Reading) -> Arrays:
    """What scikit-learn loads: rows and, where it knows classes, labels, by their names or their numbers."""
    y = None if data.get("target") is None else np.asarray(data["target"])
    if y is None or y.dtype.kind == "f":  # of a regression
        return _with_labels(data["data"], None, name, reading)
    arrays = _with_labels(data["data"], y, name, reading)
    names = data.get("target_names")
    are_numbers = names is not None and y.dtype.kind in "iu" and np.isin(y, np.arange(len(names))).all()
    return replace(arrays, class_names=tuple(map(str, names))) if are_numbers else arrays


def _pair(data: Any) -> tuple[Any, Any] | None:
    """A pair (x, y), as a tuple or as a list of two arrays; None for anything else.

    Raises:
        InputError: if a tuple holds something else.
    """
    if not isinstance(data, list | tuple):
        return None
    is_pair = len(data) == 2 and all(each is None or hasattr(each, "__len__") for each in data) and data[0] is not None
    nested = is_pair and all(isinstance(each, tuple) for each in data)
    if is_pair and not nested and (isinstance(data, tuple) or _looks_like_labels(*data)):
        return data[0], data[1]
    if isinstance(data, tuple):
        raise InputError(
            "an array x, or a pair of arrays (x, y), as data",
            "a tuple of tuples" if nested else f"a tuple of {len(data)}",
            "give (x, y); of sets that are cut already, a pyro_vae.data.Dataset",
        )
    return None


def _looks_like_labels(x: Any, y: Any) -> bool:
    return (
        len(x) == len(y) and np.ndim(x[0] if isinstance(x, list) else x) > int(not isinstance(x, list)) and _is_flat(y)
    )


def _is_flat(y: Any) -> bool:
    return (np.ndim(y[0]) if isinstance(y, list | tuple) else np.ndim(y)) <= (0 if isinstance(y, list | tuple) else 2)


def is_path(data: Any) -> bool:
    """Whether data are given by a name or a path."""
    return isinstance(data, str | os.PathLike)

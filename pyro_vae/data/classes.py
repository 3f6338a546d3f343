"""Class labels as people have them: numbers or text, one per row or one-hot, some of them missing.

No label is -1 (also as a float or as text), NaN, None, ``pandas.NA`` or an empty text, as scikit-learn's
semi-supervised estimators have it; -1 beside other negative numbers, the text that NaN becomes, and the number that -1
becomes in an unsigned type are refused.
Classes are the other values: whole numbers in their order, text in its own, categories of a pandas column in theirs.
One-hot rows count as the number of their column.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError

UNLABELLED = -1  # among class indices
GONE = ("nan", "NaN", "<NA>", "NaT")  # what a missing label becomes as text
NO_LABELS = "leave y out (of a table: --label-column none), or label some rows"


def read_classes(
    y: Array, num_rows: int, name: str, class_names: tuple[str, ...] = ()
) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices of shape (N,), int64, -1 where there is no label, and the classes' names.

    Args:
        y: labels of shape (N,) or (N, 1), or one-hot of shape (N, K).
        num_rows: N.
        name: what to call the data.
        class_names: names of the classes 0, 1, … where y is their number; default: its values.

    Raises:
        InputError: if there is not one label per row, fewer than two classes, or values that name no class.

    Example:
        >>> from pyro_vae.data.classes import read_classes
        >>> read_classes(np.array(["dog", "", "cat", None], dtype=object), 4, "pets")
        (tensor([ 1, -1,  0, -1]), ('cat', 'dog'))
        >>> read_classes(np.array([[0, 1], [1, 0], [0, 0]]), 3, "pets")
        (tensor([ 1,  0, -1]), ('0', '1'))
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != num_rows:
        raise InputError(
            f"one label per row in y of {name}, shape ({num_rows},)",
            f"shape {y.shape}",
            "give one class label for each row of x, or leave y out",
        )
    if y.ndim == 2:
        indices, names = _from_one_hot(y, name)
    elif y.dtype.kind in "biu":
        _check_unsigned(y, name)
        indices, names = _sorted_classes(y, y == -1)
    else:
        values = [_label(value, name) for value in y.tolist()]
        indices, names = _of_values(values, name)
    if class_names and all(each.isdecimal() and int(each) < len(class_names) for each in names):
        numbers_of = np.array([*map(int, names), UNLABELLED])
        indices, names = numbers_of[indices], class_names
    _check_classes(indices, names, name)
    return torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)), names


def _check_unsigned(y: Array, name: str) -> None:
    """Refuse what -1 becomes in a type without negative numbers, as ``np.where(known, y, -1)`` has it."""
    if y.dtype.kind != "u":
        return
    largest = np.iinfo(y.dtype).max
    if (y == largest).any() and not (y == largest - 1).any():
        raise InputError(
            f"classes in y of {name}, and -1 for no label",
            f"{largest}, which is what -1 becomes in {y.dtype}",
            f"use np.where(y == {largest}, -1, y.astype(int)), or y.astype(str) if it is a class",
        )


def _check_classes(indices: Array, names: tuple[str, ...], name: str) -> None:
    if not (indices >= 0).any():
        raise InputError(f"a label in y of {name}", "none: -1, NaN, None and empty text are not labels", NO_LABELS)
    negative = [each for each in names if each.startswith("-") and each[1:].isdecimal()]
    if negative and (indices < 0).any():
        raise InputError(
            f"whole numbers from 0 on, or text, as classes in y of {name}, and -1 for no label",
            f"{negative[0]} beside -1, which may be a class",
            "use y - y.min(), or text, if -1 is a class, else None in its place",
        )
    if len(names) < 2:
        note = (
            ", and -1, which is not a label: name the classes 'minus' and 'plus' if it is one"
            if (indices < 0).any()
            else ""
        )
        raise InputError(f"at least two classes in y of {name}", f"1, {names[0]!r}{note}", NO_LABELS)


def _sorted_classes(values: Array, missing: Array) -> tuple[Array, tuple[str, ...]]:
    classes, places = np.unique(values[~missing], return_inverse=True)
    indices = np.full(len(values), UNLABELLED)
    indices[~missing] = places
    return indices, tuple(map(str, classes.tolist()))


def _from_one_hot(y: Array, name: str) -> tuple[Array, tuple[str, ...]]:
    values = np.zeros(y.shape)
    if y.dtype.kind in "biuf":
        values = np.nan_to_num(y.astype(float), nan=0.0)
    if not (np.isin(values, (0, 1)).all() and (values.sum(1) <= 1).all() and values.any()):
        raise InputError(
            f"one label per row in y of {name}, shape ({len(y)},), or one-hot rows",
            f"shape {y.shape} with rows that are not one-hot",
            "give the most probable class, y.argmax(1), or one column of it",
        )
    return np.where(values.any(1), values.argmax(1), UNLABELLED), tuple(map(str, range(y.shape[1])))


def _label(value: Any, name: str) -> int | str | None:
    """One label as a whole number or text; None where it is not one."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or (isinstance(value, str) and value.strip() in ("", "-1")):
        return None
    if isinstance(value, str):
        if value in GONE:
            raise _gone(value, name)
        return str(value)
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, numbers.Integral):
        return None if value == -1 else int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isnan(number) or number == -1:
            return None
        if not number.is_integer():
            raise _no_class(str(number), name)
        return int(number)
    raise _no_class(f"{value!r:.60} of type {type(value).__name__}", name)


def _gone(text: str, name: str) -> InputError:
    return InputError(
        f"class labels in y of {name}",
        f"the text {text!r}, which is what a missing label becomes as text",
        "give None for it, for example by y.map(str, na_action='ignore')",
    )


def _no_class(found: str, name: str) -> InputError:
    return InputError(
        f"class labels in y of {name}: whole numbers or text",
        found,
        "give classes, for example pandas.cut(y, 5, labels=False), or leave y out (of a table: --label-column none)",
    )


def _of_values(values: list[int | str | None], name: str) -> tuple[Array, tuple[str, ...]]:
    given = {value for value in values if value is not None}
    others = [str(value) for value in given if value != "None"]
    if len(others) < len(given) and others and all(other.lstrip("-").isdecimal() for other in others):
        raise _gone("None", name)  # among words it may be the name of a class, among numbers it is none
    order = sorted(given, key=lambda value: (isinstance(value, str), value))
    names = tuple(map(str, order))
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise InputError(
            f"one type for each class in y of {name}", f"{twice} as a number and as text", "use y = list(map(str, y))"
        )
    places = {value: index for index, value in enumerate(order)}
    return np.array([UNLABELLED if value is None else places[value] for value in values], dtype=np.int64), names

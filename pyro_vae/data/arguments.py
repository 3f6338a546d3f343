r"""Several arrays that a program is called with, as the columns of one, and back.

A program ``model(counts, covariates)`` takes several tensors, one row of each per datum.  Everything around it, the
minibatches, the encoder's input, the run's files, knows of one array x of rows: it holds theirs side by side, the
numbers of one after those of the other, and a program that is called with x hands each its own, in its shape and type.
So it is with a program ``model(batch)`` of one dictionary of tensors, whose entries are named ``batch.counts``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.containers import MAY_HOLD, as_numbers, is_bunch
from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.pairs.reach import signature_of

MOST_WHOLE = 2**24  # that single precision tells from its neighbours
LABELS = ("y", "ys", "label", "labels")  # parameters that whole numbers are classes for
TYPES = ("float32", "int64", "bool")  # as whose tensors a program is given its arguments


@dataclass(frozen=True)
class Argument:
    """One argument of a program, a row per datum.

    Args:
        name: of the parameter, or of it and, behind a dot, the key of a dictionary.
        shape: of one row.
        dtype: float32 (the default type of torch, if that is another), int64 or bool.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many numbers a row of it has."""
        return math.prod(self.shape)

    def of(self, numbers: Tensor) -> Tensor:
        """The argument from its columns, shape (N, size)."""
        shaped = numbers.reshape(len(numbers), *self.shape)
        return shaped if self.dtype == "float32" else shaped.to(getattr(torch, self.dtype))


def parameters_of(program: Callable[..., Any]) -> tuple[str, ...]:
    """The names of what a program has to be called with; none where that cannot be told."""
    try:
        parameters = signature_of(program).parameters.values()
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in parameters if each.kind in kinds and each.default is inspect.Parameter.empty)


def by_parameter(data: Any, parameters: Sequence[str]) -> dict[str, Any] | None:
    """What holds an array for each parameter, by name; None for other data, such as rows with their labels.

    Args:
        data: whatever ``fit`` was given.
        parameters: of the program; a single one takes a mapping whole, but for one of x, y and missing.
    """
    if is_bunch(data) or (isinstance(data, Mapping) and len(parameters) == 1 and set(data) <= set(MAY_HOLD)):
        return None
    if isinstance(data, tuple) and len(data) == 2 and parameters[-1] in LABELS and _may_be_labels(data[1]):
        return None
    return named(data, parameters)


def named(data: Any, parameters: Sequence[str]) -> dict[str, Any] | None:
    """The arrays of a tuple or a mapping by the names of arguments; None if they are none for these parameters."""
    if isinstance(data, Mapping) and len(parameters) == 1:
        has_names = all(isinstance(key, str) for key in data)
        return {f"{parameters[0]}.{key}": values for key, values in data.items()} if has_names else None
    if isinstance(data, Mapping):
        return {name: data[name] for name in parameters} if set(data) == set(parameters) else None
    if isinstance(data, tuple) and len(data) == len(parameters) > 1:
        return dict(zip(parameters, data, strict=True))
    return None


def side_by_side(given: Mapping[str, Any], name: str) -> tuple[Array, tuple[Argument, ...]]:
    """Several arrays as columns of one, shape (N, D), and what they are.

    Args:
        given: the arrays by the name of the parameter.
        name: what to call the data.

    Raises:
        InputError: if one is not numbers, they have not as many rows, or whole numbers are too large to be exact.
    """
    parts, arguments = list[Array](), list[Argument]()
    for key, values in given.items():
        array, missing = as_numbers(values, f"{key} of {name}")
        if array.ndim == 0:
            raise InputError(f"a row per datum in {key} of {name}", "a single number", "let the program hold it itself")
        if array.dtype.kind in "ui" and array.size and max(-int(array.min()), int(array.max())) >= MOST_WHOLE:
            mend = f"number what they stand for from 0 on, numpy.unique({key}, return_inverse=True)[1]"
            raise InputError(f"whole numbers below {MOST_WHOLE:,} in {key} of {name}", f"{array.max():,}", mend)
        dtype = {"b": "bool", "u": "int64", "i": "int64"}.get(array.dtype.kind, "float32")
        arguments.append(Argument(key, array.shape[1:], dtype))
        numbers = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
        parts.append((numbers if missing is None else np.where(missing, np.nan, numbers)).reshape(len(array), -1))
    rows = {key: len(part) for key, part in zip(given, parts, strict=True)}
    if len(set(rows.values())) > 1:
        said = ", ".join(f"{key} {number:,}" for key, number in rows.items())
        raise InputError(f"as many rows in each array of {name}", said, "give one row per datum in all of them")
    return np.concatenate(parts, axis=1), tuple(arguments)


def parameters_in(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """The parameters that take them: one of a dictionary takes all."""
    return tuple(dict.fromkeys(each.name.partition(".")[0] for each in arguments))


class OfColumns:
    """A program of x, the columns of its arguments side by side.

    Args:
        program: the program, called with as many tensors.
        arguments: what they are.

    Example:
        >>> from pyro_vae.data.arguments import OfColumns, side_by_side
        >>> x, arguments = side_by_side({"counts": [[1, 2], [3, 4]], "weight": [0.5, 1.5]}, "mine")
        >>> program = OfColumns(lambda counts, weight: (counts.dtype, weight.shape), arguments)
        >>> program(torch.as_tensor(x))
        (torch.int64, torch.Size([2]))
    """

    def __init__(self, program: Callable[..., Any], arguments: Sequence[Argument]) -> None:
        self.program, self.arguments = program, tuple(arguments)
        known = program if hasattr(program, "__qualname__") else type(program)
        self.__module__, self.__qualname__ = known.__module__, known.__qualname__
        self.__name__ = known.__qualname__.rpartition(".")[2]

    def __call__(self, x: Tensor) -> Any:
        """What the program gives."""
        parts = self.parts(x)
        if "." in self.arguments[0].name:
            return self.program({name.partition(".")[2]: part for name, part in parts.items()})
        return self.program(*parts.values())

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """The arguments by name."""
        columns = x.split([each.size for each in self.arguments], dim=-1)
        return {each.name: each.of(part) for each, part in zip(self.arguments, columns, strict=True)}

    def whole(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The columns of the arguments, shape (N, D)."""
        numbers = torch.get_default_dtype()
        columns = [parts[each.name].to(numbers).reshape(-1, each.size) for each in self.arguments]
        return torch.cat(columns, dim=1)


def _may_be_labels(values: Any) -> bool:
    """Whether values may be meant as classes of rows: whole numbers or text, one per row."""
    if isinstance(values, Tensor):
        return values.ndim == 1 and not values.is_floating_point()
    kind = np.asarray(values) if isinstance(values, list) else values
    dtype = getattr(kind, "dtype", None)
    return np.ndim(kind) == 1 and getattr(dtype, "kind", "O") not in "fc"

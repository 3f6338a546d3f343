"""What an estimator is called with, taken apart: tensors, numbers, objects, and the form of it all.

A graph takes the tensors as inputs and depends on the form: how lists, tuples and dictionaries are nested, shapes and
dtypes, words and truth values.  Numbers are given apart, since one that changes from call to call can be handed over as
a tensor.  Objects, such as a module, a function, a dataclass or an ``argparse.Namespace``, are looked into as the
programs are (see ``program_state``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.compiled.contents import LARGEST_ARRAY, Unwatchable, checksum
from pyro_vae.compiled.places import PLAIN, describe, value_of
from pyro_vae.compiled.walk import Number

_COMPARED = (*PLAIN, slice, range)


class Arguments:
    """The arguments of one call.

    Args:
        args: by position.
        kwargs: by name.
        unread: positions and names of those that do not count.

    Attributes:
        form: what a graph depends on.
        forms: the form of each value, by the path to it.
        tensors: the tensors, in order; one that is handed over twice is there twice.
        numbers: the numbers, by the path to them.
        objects: what is to be looked into, with what it is called.

    Raises:
        Unwatchable: if something among them changes as it is read.
    """

    def __init__(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], unread: frozenset[int | str] = frozenset()
    ) -> None:
        self.tensors: list[Tensor] = []
        self.numbers: dict[str, Number] = {}
        self.objects: list[tuple[str, Any]] = []
        self.forms: dict[str, Hashable] = {}
        self._args, self._kwargs, self._unread = args, kwargs, unread
        for i, value in enumerate(args):
            if i not in unread:
                self._take(f"argument {i + 1}", value)
        for name, value in kwargs.items():
            if name not in unread:
                self._take(f"the argument {name}", value)
        self.form = (len(args), tuple(kwargs), unread, tuple(self.forms.values()))

    def exchanged(self, tensors: list[Tensor], numbers: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """These arguments with other tensors, and with tensors in the place of some numbers."""
        following = iter(tensors)

        def exchange(path: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                return next(following)
            return _mapped(lambda key, inner: exchange(f"{path}[{key!r}]", inner), value, numbers.get(path, value))

        def exchange_if_read(key: int | str, path: str, value: Any) -> Any:
            return value if key in self._unread else exchange(path, value)

        args = tuple(exchange_if_read(i, f"argument {i + 1}", value) for i, value in enumerate(self._args))
        return args, {k: exchange_if_read(k, f"the argument {k}", value) for k, value in self._kwargs.items()}

    def _take(self, path: str, value: Any) -> None:
        form = self.forms
        if path in form:
            raise Unwatchable(f"{path} is there twice: two keys are written alike")
        kind: Any = type(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            form[path] = (describe(value), value.requires_grad)
        elif kind in (int, float):
            self.numbers[path] = value
            form[path] = kind
        elif kind in _COMPARED:
            form[path] = (kind, value if kind is not slice else repr(value))
        elif isinstance(value, Enum):
            form[path] = str(value)
        elif isinstance(value, (np.floating, np.integer)):
            self.numbers[path] = value.item()
            form[path] = kind
        elif isinstance(value, np.generic):
            form[path] = (kind, value_of(value.item()))
        elif isinstance(value, np.ndarray):
            form[path] = self._array(path, value)
        elif kind in (list, tuple, dict) or _is_named_tuple(value):
            form[path] = (kind, tuple(value) if kind is dict else len(value))
            for key, inner in value.items() if kind is dict else enumerate(value):
                self._take(f"{path}[{key!r}]", inner)
        elif isinstance(value, Iterator):
            raise Unwatchable(f"{path} is a {kind.__name__}, which can be read once; hand over what it gives")
        else:
            form[path] = kind
            self.objects.append((path, value))

    def _array(self, path: str, value: np.ndarray) -> Hashable:
        if value.dtype.hasobject or value.nbytes > LARGEST_ARRAY:
            raise Unwatchable(f"{path} is a NumPy array of {value.nbytes:,} bytes; hand over a tensor")
        return (value.shape, str(value.dtype), checksum(value))


def _mapped(function: Callable[[Any, Any], Any], value: Any, default: Any) -> Any:
    """A container of what a function gives for each entry; anything else is exchanged for the default."""
    if type(value) is dict:
        return {key: function(key, inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(function(key, inner) for key, inner in enumerate(value))
    if _is_named_tuple(value):
        return type(value)(*(function(key, inner) for key, inner in enumerate(value)))
    return default


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")

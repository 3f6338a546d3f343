"""Where programs hold things in Python: variables, attributes, entries of containers.

A *holder* is one such object, seen as a row of values that may be rebound; a *place* is one of them.  A holder keeps
nothing alive, so a program that is dropped is gone.
"""

from __future__ import annotations

import functools
import operator
import types
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
REGISTERS = (
    "_parameters",
    "_buffers",
    "_modules",
    "_pyro_params",
    "_pyro_samples",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
ABSENT = object()


class Holder(ABC):
    """What holds some values; a new kind says what they are, and how one is put in the place of another.

    Args:
        paths: what each value is called.

    Attributes:
        is_own: whether a user's code binds the values, or that of a library.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self.is_own = True
        self.identities: list[int] = []
        self._kept: list[Any] = []  # so that an identity stays theirs

    @abstractmethod
    def values(self) -> list[Any]:
        """The values, as they are now; of another length if the holder has changed, or is gone."""

    @abstractmethod
    def put(self, index: int, value: Any) -> None:
        """Bind a place to another value."""

    def put_all(self, values: Sequence[Any]) -> None:
        """Bind all places as they were."""
        now = self.values()
        for i, value in enumerate(values):
            if i >= len(now) or now[i] is not value:
                self.put(i, value)

    def is_unchanged(self) -> bool:
        """Whether everything is bound as it was when it was last noted."""
        return list(map(id, self.values())) == self.identities

    def note(self) -> list[Any]:
        """The values, which are what later ones are compared with."""
        values = self.values()
        self.identities = list(map(id, values))
        self._kept = [value for value in values if type(value) in PLAIN or isinstance(value, Tensor)]
        return values


@dataclass(frozen=True)
class Place:
    """One value of a holder."""

    holder: Holder
    index: int

    def get(self) -> Any:
        """The value that is bound there; ``ABSENT`` if there is none."""
        values = self.holder.values()
        return values[self.index] if self.index < len(values) else ABSENT

    def put(self, value: Any) -> None:
        """Bind it to another value."""
        self.holder.put(self.index, value)


class Cells(Holder):
    """Variables of the functions around a function."""

    def __init__(self, function: types.FunctionType, names: Sequence[str], path: str) -> None:
        super().__init__([f"{name} in {path}" for name in names])
        self._find = reference(function)
        self._indices = [function.__code__.co_freevars.index(name) for name in names]

    def values(self) -> list[Any]:
        function = self._find()
        if function is None or function.__closure__ is None:
            return []
        return [_content(function.__closure__[i]) for i in self._indices]

    def put(self, index: int, value: Any) -> None:
        self._find().__closure__[self._indices[index]].cell_contents = value


class Context(Holder):
    """The value of a context variable."""

    def __init__(self, variable: ContextVar[Any], path: str) -> None:
        super().__init__([f"{path}.get()"])
        self._find = reference(variable)

    def values(self) -> list[Any]:
        variable = self._find()
        return [] if variable is None else [variable.get(ABSENT)]

    def put(self, index: int, value: Any) -> None:
        if value is not ABSENT:
            self._find().set(value)


class Parts(Holder):
    """What a function is made of: its code, and the defaults of its arguments."""

    def __init__(self, function: types.FunctionType, path: str) -> None:
        super().__init__([f"{path}.{name}" for name in self.NAMES])
        self._find = reference(function)

    NAMES = ("__code__", "__defaults__", "__kwdefaults__")

    def values(self) -> list[Any]:
        function = self._find()
        return [] if function is None else [getattr(function, name) for name in self.NAMES]

    def put(self, index: int, value: Any) -> None:
        setattr(self._find(), self.NAMES[index], value)


class Space(Holder):
    """Names of a module."""

    def __init__(self, space: Any, names: Sequence[str], prefix: str = "") -> None:
        super().__init__([prefix + name for name in names])
        self._space, self._names = space, names

    def values(self) -> list[Any]:
        return [self._space.get(name, ABSENT) for name in self._names]

    def put(self, index: int, value: Any) -> None:
        self._space[self._names[index]] = value


class ClassSpace(Space):
    """Names of a class."""

    def __init__(self, kind: type, names: Sequence[str], prefix: str) -> None:
        super().__init__(vars(kind), names, prefix)
        self._kind = kind

    def put(self, index: int, value: Any) -> None:
        setattr(self._kind, self._names[index], value)


class Attributes(Holder):
    """Variables of an object, in its dictionary or in slots."""

    def __init__(self, thing: Any, names: Sequence[str], slots: Sequence[str], path: str) -> None:
        super().__init__([f"{path}.{name}" for name in (*names, *slots)])
        self._find, self._names, self._slots = reference(thing), names, slots
        self._size = len(vars(thing)) if hasattr(thing, "__dict__") else 0

    def values(self) -> list[Any]:
        thing = self._find()
        variables = {} if thing is None or not hasattr(thing, "__dict__") else vars(thing)
        if thing is None or len(variables) != self._size:  # a new variable may be one that is read
            return [] if self.paths else [ABSENT]
        found = [variables.get(name, ABSENT) for name in self._names]
        return found if not self._slots else [*found, *(getattr(thing, name, ABSENT) for name in self._slots)]

    def put(self, index: int, value: Any) -> None:
        thing = self._find()
        if index < len(self._names):
            vars(thing)[self._names[index]] = value
        else:
            object.__setattr__(thing, self._slots[index - len(self._names)], value)


class Registered(Holder):
    """What is registered with a module: parameters, buffers, submodules, hooks."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__([])
        self._find = weakref.ref(module)
        self._keys: list[tuple[str, Any]] = []
        for name in REGISTERS:
            for key in vars(module).get(name, ()):
                self._keys.append((name, key))
                self.paths.append(f"{path}.{key}")

    def values(self) -> list[Any]:
        module = self._find()
        values: list[Any] = []
        if module is not None:
            variables = vars(module)
            for name in REGISTERS:
                if register := variables.get(name):
                    values.extend(register.values())
        return values

    def put(self, index: int, value: Any) -> None:
        name, key = self._keys[index]
        vars(self._find())[name][key] = value


class Items(Holder):
    """Entries of a list, a deque or a dictionary; those of a tuple or a set, which are never rebound."""

    def __init__(self, container: Any, paths: Sequence[str]) -> None:
        super().__init__(paths)
        self._find = reference(container)
        self._has_keys = isinstance(container, Mapping)
        self._keys = list(container) if self._has_keys else []

    def values(self) -> list[Any]:
        container = self._find()
        if container is None:
            return []
        if not self._has_keys:
            return list(container)
        if _are_equal(container, self._keys):
            return list(container.values())
        return [] if self._keys else [ABSENT]  # of another length than before

    def put(self, index: int, value: Any) -> None:
        self._find()[self._keys[index] if self._keys else index] = value

    def put_all(self, values: Sequence[Any]) -> None:
        container = self._find()
        if not isinstance(container, (dict, list, deque, set)):  # which others see, and never rebind
            return
        if isinstance(container, dict):
            if not _are_equal(container, self._keys):
                container.clear()
            container.update(zip(self._keys, values, strict=True))
        elif list(map(id, container)) != list(map(id, values)):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(values)


def reference(thing: Any) -> Callable[[], Any]:
    """A function that finds a thing and does not keep it alive, where that is possible."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _are_equal(keys: Collection[Any], others: Sequence[Any]) -> bool:
    """Whether two rows of keys are the same; those that are not plain values, by identity."""
    if len(keys) != len(others):
        return False
    return all(map(operator.is_, keys, others)) or all(
        one is other or (type(one) in PLAIN and type(one) is type(other) and one == other)
        for one, other in zip(keys, others, strict=True)
    )


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return ABSENT


def wrapped_by(thing: Any) -> tuple[Any, ...]:
    """The parts of what stands for a function: a method, a partial, a property; nothing of anything else."""
    if isinstance(thing, types.MethodType):
        return thing.__self__, thing.__func__
    if isinstance(thing, functools.partial):
        return thing.func, thing.args, thing.keywords, vars(thing)
    if isinstance(thing, property):
        return (thing.fget,)
    return (thing.__func__,) if isinstance(thing, (staticmethod, classmethod)) else ()


def describe(tensor: Tensor) -> Hashable:
    """What a graph depends on, of a tensor."""
    strides = tensor.stride() if tensor.layout is torch.strided else tensor.layout
    views = tensor.is_conj(), tensor.is_neg(), tensor.is_inference()  # a kernel that reads its memory must know
    return (tuple(tensor.shape), strides, tensor.dtype, tensor.device, views)


def kind_of(value: Any) -> Hashable:
    """What a value may be exchanged for without a change of the form; None for nothing."""
    if isinstance(value, Tensor):
        return describe(value)
    if type(value) in (int, float):
        return type(value).__name__
    return (type(value), value_of(value)) if type(value) in PLAIN else None


def value_of(thing: Any) -> Hashable:
    """A value that equals another one only if it is the same number, down to the sign of zero."""
    return float.hex(thing) if type(thing) is float else thing

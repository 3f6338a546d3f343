"""What programs hold in Python, so that a change of it is noticed.

A graph is what Python did on one run.  A switch that lies outside the arguments, ``self.training`` or a number that a
function closes over, and a tensor that a program reaches by itself, may be rebound between two calls; then the graph is
of another program.  So before every call the state of the programs is read: the plain values, the tensors by identity,
and the code that they can reach through attributes, closures, default arguments, the globals that their functions
mention, and through lists, dictionaries and other objects held there.  Of the attributes of an own class only those
count whose name appears in the code that can be reached: what a training loop keeps beside its programs does not.

Reading everything takes milliseconds, so it is done only after something was rebound: until then a call compares the
identities of what is held with those of last time.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_CONTAINERS = (dict, list, tuple, set, frozenset)
_LARGEST = 10_000  # entries of a container that are looked at
_MOST_STATES = 64  # that are told apart
_LIBRARIES = sys.stdlib_module_names | {
    "numpy",
    "pandas",
    "pyro",
    "pyro_vae",
    "scipy",
    "sklearn",
    "torch",
    "torchvision",
}
_BY_ANY_NAME = {"__dict__", "__getattribute__", "eval", "exec", "getattr", "globals", "locals", "vars"}
_REGISTERS = (
    "_parameters",
    "_buffers",
    "_modules",
    "_pyro_params",
    "_pyro_samples",
    "_forward_hooks",
    "_forward_pre_hooks",
)
_PLAIN_BASES = (object, nn.Module, PyroModule)

Entry = tuple[str, Hashable]
Values = Callable[[], Sequence[Any]]


class Watch:
    """The state of some programs, numbered: two equal numbers are the same program.

    Nothing here keeps a program alive.
    """

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self._walk: _Walk | None = None
        self._number: int | None = None
        self._numbers: dict[tuple[Entry, ...], int] = {}
        self._serials = _Serials()

    def read(self, programs: Iterable[tuple[str, Any]]) -> int | None:
        """The number of the present state of programs, which are given with what they are called; None past many."""
        if self._walk is None or not self._walk.is_up_to_date():
            self._walk = _walk(tuple(programs), self._serials)
            self.tensors = {id(tensor): tensor for tensor in self._walk.tensors}
            entries = tuple(self._walk.entries)
            if entries not in self._numbers and len(self._numbers) < _MOST_STATES:
                self._numbers[entries] = len(self._numbers)
            self._number = self._numbers.get(entries)
        return self._number

    def position(self, tensor: Tensor) -> int | None:
        """Which of the tensors that the programs reach it is; None if they do not."""
        return self._serials.of(tensor) if id(tensor) in self.tensors else None

    def difference(self, before: int, after: int) -> list[str]:
        """What differs between two states, one text an entry."""
        states = {number: dict(entries) for entries, number in self._numbers.items() if number in (before, after)}
        old, new = states[before], states[after]
        texts = []
        for path in dict.fromkeys((*old, *new)):
            if old.get(path) != new.get(path):
                texts.append(f"{path}: {_shown(old.get(path))} to {_shown(new.get(path))}")
        return texts


class _Serials:
    """A number for every object, never given again, as an identity is once its object is gone."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], int]] = {}
        self._next = itertools.count()

    def of(self, thing: Any) -> int:
        known = self._known.get(id(thing))
        if known is None or known[0]() is not thing:
            known = self._known[id(thing)] = (_reference(thing), next(self._next))
        return known[1]


def _walk(programs: Sequence[tuple[str, Any]], serials: _Serials) -> _Walk:
    mentioned: set[str] = set()
    while True:  # until no further code is found that mentions further names
        walk = _Walk(frozenset(mentioned), serials)
        for name, program in programs:
            walk.visit(name, program)
        if walk.names <= mentioned:
            return walk
        mentioned |= walk.names


class _Walk:
    """One look at everything that programs can reach.

    Attributes:
        entries: what was found, in order.
        tensors: the tensors among it.
        names: the names that the code among it mentions.
    """

    def __init__(self, mentioned: frozenset[str], serials: _Serials) -> None:
        self.entries: list[Entry] = []
        self.tensors: list[Tensor] = []
        self.names: set[str] = set()
        self._mentioned = mentioned
        self._any_name = not mentioned.isdisjoint(_BY_ANY_NAME)
        self._serials = serials
        self._visited: dict[int, int] = {}
        self._sources: list[tuple[Values, list[int]]] = []
        self._kept: list[Any] = []  # so that an identity stays theirs

    def is_up_to_date(self) -> bool:
        """Whether everything is bound as it was."""
        return all(list(map(id, values())) == identities for values, identities in self._sources)

    def visit(self, path: str, thing: Any) -> None:
        """Note a thing and what can be reached from it."""
        if type(thing) in _PLAIN:
            self.entries.append((path, (type(thing), thing)))
        elif isinstance(thing, Tensor):
            self.entries.append((path, self._serials.of(thing)))
            self.tensors.append(thing)
        elif id(thing) in self._visited:
            self.entries.append((path, ("as", self._visited[id(thing)])))
        elif not isinstance(thing, types.ModuleType):
            self._visited[id(thing)] = len(self._visited)
            self._look_into(path, thing)

    def _look_into(self, path: str, thing: Any) -> None:
        if isinstance(thing, types.FunctionType):
            self._visit_function(path, thing)
        elif isinstance(thing, types.MethodType):
            self.visit(path, thing.__self__)
            self.visit(path, thing.__func__)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, thing.args, thing.keywords):
                self.visit(path, part)
        elif isinstance(thing, property):
            self.visit(path, thing.fget)
        elif isinstance(thing, (staticmethod, classmethod)):
            self.visit(path, thing.__func__)
        elif isinstance(thing, type):
            self.entries.append((path, self._serials.of(thing)))
            self._visit_class(path, thing)
        elif isinstance(thing, _CONTAINERS) and len(thing) <= _LARGEST:
            self._visit_container(path, thing)
        elif isinstance(thing, Enum):
            self.entries.append((path, str(thing)))
        elif _has_attributes(thing):
            self._visit_object(path, thing)
        else:
            self.entries.append((path, self._serials.of(thing)))
            self._kept.append(thing)

    def _visit_container(self, path: str, thing: Any) -> None:
        self.entries.append((path, (type(thing), len(thing))))
        if isinstance(thing, dict):
            self._watch(lambda: [*thing, *thing.values()])
            keys: Iterable[Any] = list(thing.values())
            labels: Iterable[Any] = list(thing)
        else:
            if not isinstance(thing, tuple):
                self._watch(lambda: list(thing))
            keys, labels = list(thing), itertools.count()
        for label, value in zip(labels, keys, strict=False):
            self.visit(f"{path}[{label!r}]" if type(label) in _PLAIN else f"{path}[{self._serials.of(label)}]", value)

    def _visit_function(self, path: str, function: types.FunctionType) -> None:
        self.entries.append((path, self._serials.of(function.__code__)))
        find = _reference(function)
        if function.__closure__:
            self._watch(lambda: _cells(find()))
            for key, value in zip(function.__code__.co_freevars, _cells(function), strict=True):
                self.visit(f"{key} in {path}", value)
        if vars(function):
            self.visit(f"{path}.__dict__", vars(function))
        if _is_library(function):
            return
        names = set(_names(function.__code__))
        self.names |= names
        self.visit(f"{path}.__defaults__", function.__defaults__)
        self.visit(f"{path}.__kwdefaults__", function.__kwdefaults__)
        space = function.__globals__
        used = sorted(name for name in names if name in space and not _is_library(space[name]))
        if used:
            self._watch(lambda: list(map(space.get, used)))
        for name in used:
            if isinstance(space[name], types.ModuleType):
                self._visit_names(name, vars(space[name]), names)
            else:
                self.visit(name, space[name])

    def _visit_names(self, path: str, space: Mapping[str, Any], names: Iterable[str]) -> None:
        used = sorted(name for name in names if name in space)
        self._watch(lambda: list(map(space.get, used)))
        for name in used:
            self.visit(f"{path}.{name}", space[name])

    def _visit_class(self, path: str, kind: type) -> None:
        for base in kind.__mro__:
            if not _is_library(base):
                called = {key for key in vars(base) if key.startswith("__") or key == "forward"} - _NOT_CALLED
                keys = [key for key in vars(base) if key in called or self._counts(kind, key)]
                self._visit_names(path, vars(base), set(keys) - _NOT_CALLED)

    def _visit_object(self, path: str, thing: Any) -> None:
        kind = type(thing)
        self.visit(f"type({path})", kind)
        slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(thing, name)]
        find = _reference(thing)
        if slots:
            self._watch(lambda: [getattr(find(), name, None) for name in slots])
            for name in slots:
                self.visit(f"{path}.{name}", getattr(thing, name))
        if isinstance(thing, nn.Module):
            self._visit_module(path, thing)
        elif hasattr(thing, "__dict__"):
            variables = vars(thing)
            if isinstance(thing, Messenger):  # plates, too; the rest is what a handler notes while it is at work
                keys = [key for key in variables if not key.startswith("_") and key != "counter"]
            else:
                keys = [key for key in variables if self._counts(kind, key)]
            size = len(variables)
            self._watch(lambda: _variables(find(), size, keys))
            for key in keys:
                self.visit(f"{path}.{key}", variables[key])

    def _visit_module(self, path: str, module: nn.Module) -> None:
        variables = vars(module)
        keys = [key for key in variables if key not in _MODULE_KEYS and self._counts(type(module), key)]
        keys.append("training")
        registers = [variables[key] for key in _REGISTERS if key in variables]
        size, find = len(variables), weakref.ref(module)
        self._watch(lambda: _module_variables(find(), size, keys))
        for key in keys:
            self.visit(f"{path}.{key}", variables[key])
        for key, value in itertools.chain.from_iterable(register.items() for register in registers):
            self.visit(f"{path}.{key}", value)

    def _counts(self, kind: type, key: str) -> bool:
        """Whether an attribute can make a difference: a library's code may read any attribute, own code says which."""
        if key.startswith("_cached"):  # a transform notes its last result
            return False
        return self._any_name or key in self._mentioned or any(map(_reads_attributes, kind.__mro__))

    def _watch(self, values: Values) -> None:
        now = values()
        self._sources.append((values, list(map(id, now))))
        self._kept.extend(value for value in now if type(value) in _PLAIN or isinstance(value, Tensor))


_MODULE_KEYS = frozenset(vars(PyroModule()))
_NOT_CALLED = {"__init__", "__new__", "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__"}


def _variables(thing: Any, size: int, keys: Sequence[str]) -> Sequence[Any]:
    """The values of some attributes of a thing that has them; nothing if it has not, or is gone."""
    variables = {} if thing is None else vars(thing)
    return [True, *map(variables.get, keys)] if len(variables) == size else []


def _module_variables(module: nn.Module | None, size: int, keys: Sequence[str]) -> Sequence[Any]:
    """The variables of ``_variables``, and what is registered with a module."""
    values = [*_variables(module, size, keys)]
    if module is not None:
        variables = vars(module)
        for key in _REGISTERS:
            if register := variables.get(key):
                values.append(key)
                values.extend(register.values())
    return values


def _cells(function: types.FunctionType | None) -> list[Any]:
    values: list[Any] = []
    for cell in (function and function.__closure__) or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not yet filled
            values.append(None)
    return values


def _reference(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return (name for name in names if name not in ("__dict__", "__weakref__"))


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The names and words in a piece of code: a word may be the name of an attribute."""
    names = [*code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.extend(_names(constant))
        elif isinstance(constant, str):
            names.append(constant)
    return tuple(names)


def _is_library(thing: Any) -> bool:
    """Whether it is a library's code, which does not change."""
    if isinstance(thing, types.ModuleType):
        module = thing.__name__
    elif isinstance(thing, types.FunctionType):  # where it was written, whatever it wraps
        module = thing.__globals__.get("__name__", "")
    elif isinstance(thing, (types.BuiltinFunctionType, type)):
        module = getattr(thing, "__module__", None) or "builtins"
    else:
        return False
    return module.split(".")[0] in _LIBRARIES


def _has_attributes(thing: Any) -> bool:
    """Whether what it holds is to be looked at; what the standard library keeps for logging or threads is not."""
    if type(thing).__module__.split(".")[0] in ("logging", "threading", "multiprocessing", "random"):
        return False
    return hasattr(thing, "__dict__") or hasattr(type(thing), "__slots__")


def _reads_attributes(base: type) -> bool:
    return base not in _PLAIN_BASES and _is_library(base)


def _shown(value: Hashable) -> str:
    if isinstance(value, tuple) and isinstance(value[0], type):
        return f"{value[1]} entries" if issubclass(value[0], _CONTAINERS) and value[0] not in _PLAIN else repr(value[1])
    return "another object"

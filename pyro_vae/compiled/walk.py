"""One look at everything that programs can reach."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import os
import random
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from enum import Enum
from multiprocessing import sharedctypes
from typing import Any

import numpy as np
import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vae.compiled.contents import Unwatchable, changes_unseen, reader_of
from pyro_vae.compiled.libraries import attributes_read, holds_more, is_library, names_sought
from pyro_vae.compiled.places import (
    ABSENT,
    PLAIN,
    Attributes,
    Cells,
    ClassSpace,
    Context,
    Holder,
    Items,
    Parts,
    Place,
    Registered,
    Space,
    describe,
    kind_of,
    reference,
    value_of,
    wrapped_by,
)
from pyro_vae.compiled.reads import Reads, reads

_VIEWS: Any = (type({}.keys()), type({}.values()))
CONTAINERS: Any = (dict, types.MappingProxyType, list, tuple, set, frozenset, deque, *_VIEWS)
_LARGEST = 10_000  # entries of a container that are looked at
# Objects of these libraries hold what a user's code put there, or run a training loop: as with a user's own classes
# only what the programs load counts.
_BAGS = ("argparse", "types", "torch.utils.data", "torch.optim", "pyro.optim", "pyro.infer.svi")
_NOT_LOOKED_INTO = ("logging", "threading", "multiprocessing")
_SWITCHES = (threading.Event, threading.Semaphore, sharedctypes.SynchronizedBase)  # of those nevertheless
_OF_THE_ENVIRONMENT = {"environ", "environb", "getenv"}
_GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    torch.Generator,
)
_PLAIN_BASES = (object, nn.Module, PyroModule)
_MODULE_KEYS = frozenset(vars(PyroModule()))
_OF_AUTOGRAD = {"forward", "backward", "setup_context", "jvp", "vmap"}
_NOT_CALLED = {"__init__", "__new__", "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__"}

Number = int | float
TENSOR = "tensor"


class Serials:
    """A number for every object, never given again, as an identity is once its object is gone."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int]] = {}
        self._next = itertools.count()

    def of(self, thing: Any) -> int:
        """The number of an object."""
        known = self._known.get(id(thing))
        if known is None or known[0]() is not thing:
            known = self._known[id(thing)] = (reference(thing), next(self._next))
        return known[1]


class Walk:
    """Everything that programs can reach.

    Args:
        names: what the code among it is known to read.
        serials: numbers for what has no value.

    Attributes:
        entries: the form of what was found, by path, in order.
        numbers: the numbers among it, by path.
        places: where the tensors and numbers are bound, by path.
        tensors: the tensors that are bound there, by path.
        reads: what the code among it reads.
        holders: what holds it all.
        written: what holds that which the programs store and never load.
        generators: sources of random numbers.
    """

    def __init__(self, names: Reads, serials: Serials) -> None:
        self.entries: dict[str, Hashable] = {}
        self.numbers: dict[str, Number] = {}
        self.places: dict[str, Place] = {}
        self.tensors: dict[str, Tensor] = {}
        self.reads = Reads()
        self.holders: list[Holder] = []
        self.written: list[Holder] = []
        self.generators: list[Any] = []
        self._names = names
        self._serials = serials
        self._visited: dict[int, int] = {}
        self._kinds: list[list[Hashable]] = []  # of the values of each holder, where they may change
        self._paths: list[list[str]] = []
        self._contents: list[tuple[Callable[[], int], int]] = []  # of arrays and tables
        self._kept: list[Any] = []  # so that an identity stays theirs
        self._modules: set[tuple[int, frozenset[str]]] = set()
        self._of_libraries: list[Holder] = []
        self._counts_of: dict[int, int] = {}
        self._is_own = True

    def refresh(self, numbers: dict[str, Number]) -> dict[str, Number] | None:
        """The numbers as they are now, the same object if none has changed; None if the form has changed."""
        changed: dict[str, Number] = {}
        for h, holder in enumerate(self.holders):
            if holder.is_unchanged():
                continue
            values, before = holder.values(), holder.identities
            if len(values) != len(before):
                return None
            for i, value in enumerate(values):
                if id(value) == before[i]:
                    continue
                kind = self._kinds[h][i]
                if kind is None or kind != kind_of(value):
                    return None
                if isinstance(value, Tensor):
                    self.tensors[self._paths[h][i]] = value
                elif type(value) in (int, float) and self._paths[h][i] in numbers:
                    changed[self._paths[h][i]] = value
            holder.note()
        if any(read() != contents for read, contents in self._contents):
            return None
        return {**numbers, **changed} if changed else numbers

    def trained(self) -> list[bool]:
        """Whether each tensor has a gradient."""
        return [tensor.requires_grad for tensor in self.tensors.values()]

    def visit(self, path: str, thing: Any) -> str:
        """Note a thing and what can be reached from it; gives the path under which it was noted."""
        path = self._new(path)
        kind = type(thing)
        if kind in PLAIN:
            self.entries[path] = (kind, value_of(thing))
            if kind is str and self._names.by_word:  # it may be the name of an attribute
                self.reads |= Reads(attributes=frozenset(thing.split(".")))
        elif isinstance(thing, Tensor):
            self.entries[path] = (TENSOR, describe(thing))
        elif thing is ABSENT:
            self.entries[path] = "absent"
        elif id(thing) in self._visited:
            self.entries[path] = ("as", self._visited[id(thing)])
        elif not isinstance(thing, types.ModuleType):
            self._visited[id(thing)] = len(self._visited)
            self._look_into(path, thing)
        return path

    def _hold(self, holder: Holder, lifted: bool = True) -> None:
        """Note all that an object holds."""
        h = len(self.holders)
        self.holders.append(holder)
        holder.is_own = self._is_own
        values = holder.note()
        self._kinds.append([kind_of(value) for value in values])
        self._paths.append([])
        for i, (path, value) in enumerate(zip(holder.paths, values, strict=True)):
            if lifted and type(value) in (int, float):
                path = self._new(path)
                self.entries[path] = type(value).__name__
                self.numbers[path] = value
                self.places[path] = Place(holder, i)
            else:
                if type(value) in (int, float):
                    self._kinds[h][i] = (type(value), value_of(value))
                path = self.visit(path, value)
                if isinstance(value, Tensor):
                    self.places[path] = Place(holder, i)
                    self.tensors[path] = value
            self._paths[h].append(path)

    def _new(self, path: str) -> str:
        """A path that nothing else has: two functions may close over variables of one name."""
        if path in self.entries:
            number = self._counts_of[hash(path)] = self._counts_of.get(hash(path), 1) + 1
            return self._new(f"{path} ({number})")
        return path

    def _look_into(self, path: str, thing: Any) -> None:
        if isinstance(thing, types.FunctionType):
            self._visit_function(path, thing)
        elif parts := wrapped_by(thing):
            for part in parts:
                self.visit(path, part)
        elif isinstance(thing, type):
            self.entries[path] = self._serials.of(thing)
            self._visit_class(path, thing)
            if not is_library(type(thing)):
                self.visit(f"type({path})", type(thing))
        elif isinstance(thing, weakref.ref):
            self.visit(f"{path}()", thing())
        elif isinstance(thing, functools._lru_cache_wrapper):
            self._visit_cached(path, thing)
        elif isinstance(thing, CONTAINERS) and len(thing) <= _LARGEST:
            self._visit_container(path, thing)
        elif isinstance(thing, Enum):
            self.entries[path] = str(thing)
        elif isinstance(thing, _GENERATORS):
            self.entries[path] = self._serials.of(thing)
            self.generators.append(thing)
        elif isinstance(thing, np.generic):
            self.entries[path] = (type(thing), thing.item())
        elif (read := reader_of(path, thing)) is not None:
            contents = read()
            self.entries[path] = (type(thing), getattr(thing, "shape", ()), str(getattr(thing, "dtype", "")), contents)
            self._contents.append((read, contents))
        elif isinstance(thing, ContextVar):
            self._hold(Context(thing, path))
        elif isinstance(thing, (operator.attrgetter, operator.methodcaller)):
            self.entries[path] = self._serials.of(thing)
            self._kept.append(thing)
            self.reads |= Reads(attributes=names_sought(thing))
        elif isinstance(thing, (types.BuiltinMethodType, types.MethodWrapperType)) and holds_more(thing):
            self.entries[path] = (type(thing), thing.__name__)
            self.visit(f"{path}.__self__", thing.__self__)
        elif changes_unseen(thing):
            raise Unwatchable(
                f"{path} is a {type(thing).__name__}, which changes without a trace; hand over what it gives"
            )
        elif _has_attributes(thing):
            self._visit_object(path, thing)
        else:
            self.entries[path] = self._serials.of(thing)
            self._kept.append(thing)

    def _visit_container(self, path: str, thing: Any) -> None:
        self.entries[path] = (type(thing), len(thing))
        labels: Iterable[Any] = thing if isinstance(thing, Mapping) else itertools.count()
        paths = [self._label(path, label) for label, _ in zip(labels, range(len(thing)), strict=False)]
        self._hold(Items(thing, paths), lifted=isinstance(thing, (dict, list, deque)))

    def _label(self, path: str, label: Any) -> str:
        return f"{path}[{label!r}]" if type(label) in PLAIN else f"{path}[{self._serials.of(label)}]"

    def _visit_function(self, path: str, function: types.FunctionType) -> None:
        code = function.__code__
        library = is_library(function)
        found = reads(code)
        cells = sorted(code.co_freevars if library else found.cells)
        if cells:
            self._hold(Cells(function, cells, path))
        if vars(function):
            self.visit(f"{path}.__dict__", vars(function))
        if library:
            self.entries[path] = self._serials.of(code)
            return
        self.reads |= found
        self._hold(Parts(function, path))
        if unread := sorted(found.stored_cells - found.cells):
            self.written.append(Cells(function, unread, path))
        space = function.__globals__
        used = sorted(name for name in found.globals if name in space)
        self._hold_names(functools.partial(Space, space), sorted(found.globals))  # one may come into being
        if unread := sorted(name for name in found.stored_globals - found.globals if name in space):
            self.written.append(Space(space, unread))
        if (found.attributes | found.globals) & _OF_THE_ENVIRONMENT:
            self.visit("os.environ", getattr(os.environ, "_data", None))
        if "get_param_store" in found.attributes | found.globals:
            self._contents.append((_names_in_store, _names_in_store()))
            self.entries[self._new("the names of parameters")] = _names_in_store()
        modules = {name: space[name] for name in used if isinstance(space[name], types.ModuleType)}
        for name, module in (modules | {name: sys.modules.get(name) for name in sorted(found.modules)}).items():
            self._visit_module(name, module, found.attributes)

    def _visit_cached(self, path: str, function: Any) -> None:
        """A function that remembers its results: what these depended on may be another by now."""
        before = len(self.holders)
        self.visit(path, function.__wrapped__)
        found = [holder for holder in self.holders[before:] if holder not in self._of_libraries]
        values = [value for holder in found if not isinstance(holder, Parts) for value in holder.values()]
        if any(value is not ABSENT for value in values):  # names of Python itself are absent
            raise Unwatchable(f"{path} remembers results that depend on more than its arguments")

    def _visit_module(self, path: str, module: Any, attributes: frozenset[str]) -> None:
        """What code reads of a module: of a library, too, which may be patched, or lend a place to a setting."""
        if not isinstance(module, types.ModuleType) or (id(module), attributes) in self._modules:
            return
        self._modules.add((id(module), attributes))
        space = vars(module)
        if not is_library(module):
            self._watch_size(module)
        names = sorted(name for name in attributes - _OF_THE_ENVIRONMENT if name in space)
        self._hold_names(lambda some: Space(space, some, f"{path}."), names)
        for name in names:
            self._visit_module(f"{path}.{name}", space[name], attributes)

    def _hold_names(self, holder: Callable[[list[str]], Space], names: Sequence[str]) -> None:
        """Names of a module or a class: what belongs to a library is known by which it is, and not looked into."""
        values = dict(zip(names, holder(list(names)).values(), strict=True))
        own = [name for name in names if not is_library(values[name]) or holds_more(values[name])]
        if own:
            self._hold(holder(own))
        if theirs := [name for name in names if name not in own]:
            note = holder(theirs)
            self.holders.append(note)
            self._of_libraries.append(note)
            note.is_own = self._is_own
            self._kinds.append([None] * len(theirs))
            self._paths.append([self._new(path) for path in note.paths])
            self.entries |= zip(self._paths[-1], map(self._serials.of, note.note()), strict=True)

    def _visit_class(self, path: str, kind: type) -> None:
        for base in kind.__mro__:
            if not is_library(base):
                self._watch_size(base)
                called = _OF_AUTOGRAD if issubclass(base, torch.autograd.Function) else {"forward"}
                keys = {k for k in vars(base) if k.startswith("__") or k in called or self._is_read(kind, k)}
                self._hold_names(functools.partial(ClassSpace, base, prefix=f"{path}."), sorted(keys - _NOT_CALLED))

    def _watch_size(self, thing: Any) -> None:
        """Look again once a class or a module has another number of names: one of them may be read."""
        self._contents.append((vars(thing).__len__, len(vars(thing))))

    def _visit_object(self, path: str, thing: Any) -> None:
        before = self._is_own
        self._is_own = before and not is_library(type(thing))
        self._visit_attributes(path, thing)
        self._is_own = before

    def _visit_attributes(self, path: str, thing: Any) -> None:
        kind = type(thing)
        self.visit(f"type({path})", kind)
        slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(thing, name)]
        variables = vars(thing) if hasattr(thing, "__dict__") else {}
        if isinstance(thing, Messenger):  # plates, too; the rest is what a handler notes while it is at work
            keys = [key for key in variables if not key.startswith("_") and key != "counter"]
        else:
            # a context manager that decorates a program makes another generator at every call
            skipped = {"gen"} if isinstance(thing, contextlib._GeneratorContextManagerBase) else _MODULE_KEYS
            keys = [key for key in variables if key not in skipped and self._is_read(kind, key)]
        if isinstance(thing, nn.Module):
            if isinstance(thing, torch.jit.ScriptModule) or kind.__name__ == "OptimizedModule":
                raise Unwatchable(f"{path} is compiled by itself; hand over the module that it was made of")
            if thing._backward_hooks or vars(thing).get("_backward_pre_hooks"):
                raise Unwatchable(f"{path} has a hook on its backward pass, which is Python")
            keys.append("training")
        if keys or slots or (hasattr(thing, "__dict__") and not is_library(kind)):
            self._hold(Attributes(thing, keys, slots, path))
        if isinstance(thing, nn.Module):
            self._hold(Registered(thing, path))
        unread = sorted(self._names.stored_attributes.intersection(variables).difference(keys))
        if unread and not is_library(kind):
            self.written.append(Attributes(thing, unread, (), path))

    def _is_read(self, kind: type, key: str) -> bool:
        """Whether an attribute can make a difference: of an own class, if a piece of code loads it."""
        if key.startswith("_cached"):  # a transform notes its last result
            return False
        if self._names.any_name or key in self._names.attributes:
            return True
        bases = [base for base in kind.__mro__ if base not in _PLAIN_BASES and is_library(base)]
        if kind in bases:
            return not kind.__module__.startswith(_BAGS)
        return any(key in attributes_read(base) for base in bases)


def _names_in_store() -> int:
    return hash(tuple(pyro.get_param_store().keys()))


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _has_attributes(thing: Any) -> bool:
    """Whether what it holds is to be looked at; what the standard library keeps for logging or threads is not."""
    if str(type(thing).__module__).split(".")[0] in _NOT_LOOKED_INTO and not isinstance(thing, _SWITCHES):
        return False
    return hasattr(thing, "__dict__") or hasattr(type(thing), "__slots__")

"""What a program's Python state says, so that a change of it is noticed.

A graph is what Python did on one run.  Switches that lie outside the arguments, ``self.training`` or
``self.use_mask`` or a number that the function closes over, are read before every call: if one has changed, so may have
the graph.  Read are the plain values (numbers, strings, truth values, None) held by modules and other objects, by
closures, and by the global names that a function mentions; of what else they hold, which object it is.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEPTH = 6
Reader = Callable[[], Hashable]


class Watch:
    """The state of some programs.

    Args:
        programs: the callables to watch, and what they are called.
    """

    def __init__(self, programs: Mapping[str, Callable[..., Any]]) -> None:
        self._seen: set[int] = set()
        self._readers: list[tuple[str, Reader]] = []
        for name, program in programs.items():
            self._readers.extend(self._watch(name, program, _DEPTH))

    def read(self) -> tuple[Hashable, ...]:
        """The state now; two equal ones are the same program."""
        return tuple(reader() for _, reader in self._readers)

    def difference(self, before: tuple[Hashable, ...], after: tuple[Hashable, ...]) -> list[str]:
        """What has changed, one text an entry."""
        pairs = zip(self._readers, before, after, strict=True)
        return [f"{name}: {_shown(old)} to {_shown(new)}" for (name, _), old, new in pairs if old != new]

    def _watch(self, name: str, thing: Any, depth: int) -> Iterator[tuple[str, Reader]]:
        if depth == 0 or id(thing) in self._seen or not _is_own(thing):
            return
        self._seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            yield from self._watch_function(name, thing, depth)
        elif isinstance(thing, types.MethodType):
            yield from self._watch(name, thing.__self__, depth)
            yield from self._watch(name, thing.__func__, depth)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                yield from self._watch(name, part, depth)
        elif isinstance(thing, nn.Module):
            for path, module in thing.named_modules():
                self._seen.add(id(module))
                yield from self._watch_object(f"{name}.{path}" if path else name, module, depth)
        elif hasattr(thing, "__dict__") and not isinstance(thing, (type, types.ModuleType, Tensor)):
            yield from self._watch_object(name, thing, depth)

    def _watch_object(self, name: str, thing: Any, depth: int) -> Iterator[tuple[str, Reader]]:
        values = vars(thing)
        for key, value in list(values.items()):
            if isinstance(value, _PLAIN):
                yield f"{name}.{key}", functools.partial(_read, values, key)
            elif not isinstance(thing, nn.Module) or not key.startswith("_"):
                yield from self._watch(f"{name}.{key}", value, depth - 1)

    def _watch_function(self, name: str, function: types.FunctionType, depth: int) -> Iterator[tuple[str, Reader]]:
        for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield f"{key} in {name}", functools.partial(_read_cell, cell)
            yield from self._watch(key, _read_cell(cell, whole=True), depth - 1)
        for key in _global_names(function.__code__):
            if key in function.__globals__:
                yield key, functools.partial(_read, function.__globals__, key)
                yield from self._watch(key, function.__globals__[key], depth - 1)


def _read(values: Mapping[str, Any], key: str) -> Hashable:
    return _plain(values.get(key))


def _read_cell(cell: types.CellType, whole: bool = False) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # not yet filled
        return None
    return value if whole else _plain(value)


def _plain(value: Any) -> Hashable:
    return (type(value), value) if isinstance(value, _PLAIN) else id(value)


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _is_own(thing: Any) -> bool:
    """Whether to look into it: torch's and Pyro's own functions and classes do not change."""
    module = getattr(thing, "__module__", None) or ""
    library = module.split(".")[0] in ("torch", "pyro", "builtins", "numpy", "math", "functools")
    return not library or not isinstance(thing, (types.FunctionType, types.BuiltinFunctionType, type)) or _wraps(thing)


def _wraps(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType) and thing.__closure__ is not None


def _shown(value: Hashable) -> str:
    return repr(value[1]) if isinstance(value, tuple) else "another object"

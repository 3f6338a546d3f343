"""The torch modules that a program uses, however it reaches them.

A program need not be a module: it may be a method of one, a function that closes over one or finds it among the
globals of its file, a ``functools.partial``, an object that can be called and holds a list of them, or any of these
inside of a handler such as ``config_enumerate``.  Modules may be attributes of a namespace, a class or another file,
and read by methods that a method calls.  Everything that can be reached so is looked into; libraries are not.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

_LIBRARIES = sys.stdlib_module_names | {"numpy", "pandas", "pyro", "scipy", "sklearn", "torch", "torchvision"}
_PLAIN = ("pyro", "types", "argparse", "collections")  # libraries whose objects hold what is put into them
_LEAVES = (str, bytes, int, float, complex, bool, type(None), Tensor, types.ModuleType)
_HOLDERS = (nn.Module, dict, list, tuple, set, frozenset, types.SimpleNamespace)
_LARGEST = 1_000  # entries of a container that are looked at
_OF_TORCH = frozenset(vars(nn.Module()))


def modules_of(program: Any) -> dict[str, nn.Module]:
    """The modules that a program reaches by something else than another module, by a path that says how.

    Args:
        program: the program; the path of one that is a module itself is empty.

    Example:
        >>> from torch import nn
        >>> from pyro_vae.pairs.reach import modules_of
        >>> encoder = nn.Linear(2, 1)
        >>> def guide(x):
        ...     return encoder(x)
        >>> modules_of(guide)
        {'encoder': Linear(in_features=2, out_features=1, bias=True)}
        >>> list(modules_of(encoder))
        ['']
    """
    found: dict[str, nn.Module] = {}
    held: set[int] = set()
    seen: set[int] = set()
    kept: list[Any] = []  # what is made on the way, so that no other object gets its identity
    ahead = [("", program)]
    while ahead:
        path, thing = ahead.pop(0)
        if isinstance(thing, _LEAVES) or id(thing) in seen:
            continue
        seen.add(id(thing))
        kept.append(thing)
        if isinstance(thing, nn.Module) and id(thing) not in held:
            found[path] = thing
            held |= {id(module) for module in thing.modules()}
        ahead += [(f"{path}.{name}" if path and name else path or name, part) for name, part in _parts(thing)]
    return found


def signature_of(program: Any) -> inspect.Signature:
    """What a program is called with, also where one of Pyro's handlers decorates it.

    Raises:
        ValueError: if Python cannot tell.

    Example:
        >>> from pyro import poutine
        >>> from pyro_vae.pairs.reach import signature_of
        >>> @poutine.scale(scale=0.5)
        ... def model(x, y=None):
        ...     return x
        >>> signature_of(model)
        <Signature (x, y=None)>
    """
    if isinstance(program, functools.partial) and type(program) is not functools.partial:
        return signature_of(program.func)  # Pyro's own kind of partial, which Python cannot see through
    if isinstance(program, functools.partial) and getattr(program.func, "__module__", "") == Messenger.__module__:
        _, inner, *first = program.args  # a handler calls inner, with what else is given

        def called() -> None: ...

        called.__signature__ = signature_of(inner)  # type: ignore[attr-defined]
        return inspect.signature(functools.partial(called, *first, **program.keywords))
    return inspect.signature(program.forward if isinstance(program, nn.Module) else program)


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """What a thing holds, by name; an empty name for what is the thing itself in other clothes."""
    if isinstance(thing, nn.Module):
        for name, module in thing.named_modules():
            for key, value in vars(module).items():
                if key not in _OF_TORCH:
                    yield f"{name}.{key}" if name else key, value
        for kind in dict.fromkeys(type(module) for module in thing.modules()):
            yield from (("", function) for function in _methods(kind, "forward"))
    elif isinstance(thing, functools.partial):
        yield "", thing.func
        yield from ((str(i), part) for i, part in enumerate(thing.args))
        yield from thing.keywords.items()
    elif isinstance(thing, types.MethodType):
        yield "", thing.__self__
        yield "", thing.__func__
        yield from (("", function) for function in _methods(type(thing.__self__), thing.__func__.__name__))
    elif isinstance(thing, types.FunctionType):
        yield from _parts_of_function(thing)
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in itertools.islice(thing.items(), _LARGEST))
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        yield from ((str(i), value) for i, value in enumerate(itertools.islice(thing, _LARGEST)))
    elif isinstance(thing, type):
        yield from _held_by_class(thing)
    elif not _is_library(type(thing).__module__, *_PLAIN):
        yield from getattr(thing, "__dict__", {}).items()
        yield from _held_by_class(type(thing), thing)
        yield from (("", function) for function in _methods(type(thing), "__call__"))


def _held_by_class(kind: type, thing: Any = None) -> Iterator[tuple[str, Any]]:
    """What is an attribute of a class, or of a thing by one of its class's slots."""
    for base in kind.__mro__:
        if _is_of_user(base.__module__):
            for name, value in vars(base).items():
                if isinstance(value, types.MemberDescriptorType) and hasattr(thing, name):
                    yield name, getattr(thing, name)
                elif isinstance(value, _HOLDERS) and not name.startswith("__"):
                    yield name, value


def _methods(kind: type, first: str) -> list[types.FunctionType]:
    """A method of a class and those of its other methods that it calls, or that these do; not those of libraries."""
    found: dict[str, types.FunctionType] = {}
    ahead = [first]
    while ahead:
        name = ahead.pop()
        function = getattr(kind, name, None)
        function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        if name not in found and isinstance(function, types.FunctionType) and _is_of_user(function.__module__ or ""):
            found[name] = function
            ahead += _names(function.__code__)
    return list(found.values())


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    yield "", getattr(function, "__wrapped__", None)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet filled
            continue
    yield from ((str(i), value) for i, value in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    if not _is_library(function.__module__ or ""):
        names = dict.fromkeys(_names(function.__code__))
        for name in names:
            held = function.__globals__.get(name)
            yield name, held
            if isinstance(held, types.ModuleType) and not _is_library(held.__name__):
                yield from ((f"{name}.{other}", vars(held)[other]) for other in names if other in vars(held))


def _is_of_user(module: str) -> bool:
    """Whether code is neither of a library nor of this package, whose modules hold what they use."""
    return not _is_library(module) and module.split(".")[0] != __name__.split(".")[0]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_library(module: str, *but: str) -> bool:
    root = module.split(".")[0]
    return root in _LIBRARIES and root not in but

"""The torch modules that a program uses, however it reaches them.

A program need not be a module: it may be a method of one, a function that closes over one or finds it among the
globals of its file, a ``functools.partial``, an object that can be called and holds a list of them, or any of these
inside of a handler such as ``config_enumerate``.  Everything that can be reached so is looked into; libraries are not.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

_LIBRARIES = sys.stdlib_module_names | {"numpy", "pandas", "pyro", "scipy", "sklearn", "torch", "torchvision"}
_LEAVES = (str, bytes, int, float, complex, bool, type(None), Tensor, types.ModuleType, type)
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
    elif isinstance(thing, functools.partial):
        yield "", thing.func
        yield from ((str(i), part) for i, part in enumerate(thing.args))
        yield from thing.keywords.items()
    elif isinstance(thing, types.MethodType):
        yield "", thing.__self__
        yield "", thing.__func__
    elif isinstance(thing, types.FunctionType):
        yield from _parts_of_function(thing)
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in itertools.islice(thing.items(), _LARGEST))
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((str(i), value) for i, value in enumerate(itertools.islice(thing, _LARGEST)))
    elif hasattr(thing, "__dict__") and not _is_library(type(thing).__module__, "pyro"):
        yield from vars(thing).items()
        call = getattr(type(thing), "__call__", None)  # noqa: B004  # its code, not whether it has any
        if isinstance(call, types.FunctionType):
            yield "", call


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
        yield from ((name, function.__globals__[name]) for name in names if name in function.__globals__)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_library(module: str, but: str = "") -> bool:
    root = module.split(".")[0]
    return root in _LIBRARIES and root != but

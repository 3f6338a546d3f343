"""Arguments that programs take and never read.

A counter of steps or the names of files beside a batch are handed to both programs, since both are called alike, and
often neither of them looks.  Such an argument is no part of a graph: it may be another one at every call, of any shape
or kind.  That nobody reads it is known by the code of the programs, which never names it.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterable
from typing import Any

from pyro.infer.autoguide import AutoCallable, AutoGuide, AutoGuideList
from torch import nn

from pyro_vae.compiled.reads import reads

_FRAMES = {"currentframe", "_getframe", "stack"}


def unread(programs: Iterable[Any], num_args: int, names: Iterable[str]) -> frozenset[int | str]:
    """The arguments that none of some programs reads.

    Args:
        programs: what is called.
        num_args: how many arguments are given by position.
        names: those given by name.

    Returns:
        Positions and names.

    Example:
        >>> def model(x, step, *rest):
        ...     return x
        >>> sorted(unread([model], 3, ()))
        [1, 2]
    """
    return functools.reduce(
        frozenset.intersection, (_unread(_entry(each), num_args, tuple(names)) for each in programs)
    )


def _entry(program: Any) -> tuple[types.CodeType, int] | bool:
    """The code that takes a program's arguments, and the position of the first; else whether it reads any."""
    if isinstance(program, types.FunctionType):
        return program.__code__, 0
    if isinstance(program, types.MethodType) and isinstance(program.__func__, types.FunctionType):
        return program.__func__.__code__, 1
    if isinstance(program, AutoGuide):
        return not _is_set_up(program)
    if isinstance(program, nn.Module):
        forward: Any = type(program).forward
        plain = type(program).__call__.__module__.split(".")[0] in ("torch", "pyro") and "forward" not in vars(program)
        hooked = program._forward_hooks or program._forward_pre_hooks
        if plain and not hooked and isinstance(forward, types.FunctionType):
            return forward.__code__, 1
    return True


def _is_set_up(guide: AutoGuide) -> bool:
    """Whether it is one of Pyro's own guides that looks at arguments in its first call alone, and had that."""
    own = type(guide).__module__ != "pyro.infer.autoguide.guides"
    if own or isinstance(guide, (AutoCallable, AutoGuideList)) or guide.create_plates is not None:
        return False
    return getattr(guide, "prototype_trace", None) is not None


@functools.lru_cache(maxsize=1024)
def _unread(entry: tuple[types.CodeType, int] | bool, num_args: int, names: tuple[str, ...]) -> frozenset[int | str]:
    if isinstance(entry, bool):
        return frozenset() if entry else frozenset((*range(num_args), *names))
    code, first = entry
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    others = list(code.co_varnames[len(named) :])
    rest = others.pop(0) if code.co_flags & 0x04 else ""  # CO_VARARGS
    by_name = others.pop(0) if code.co_flags & 0x08 else ""  # CO_VARKEYWORDS
    read = _names(code)
    taken = (*code.co_varnames[first : code.co_argcount], *[rest] * num_args)
    positions = [i for i in range(num_args) if taken[i] not in read]
    return frozenset((*positions, *(name for name in names if (name if name in named else by_name) not in read)))


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> frozenset[str]:
    """The variables that a piece of code names in its instructions, or hands to a function inside it."""
    found = reads(code)
    if found.any_name or (found.globals | found.attributes) & _FRAMES:
        return frozenset(code.co_varnames)
    values = (instruction.argval for instruction in dis.get_instructions(code))
    listed = (value if isinstance(value, tuple) else (value,) for value in values)
    return frozenset(name for some in listed for name in some if isinstance(name, str)).union(code.co_cellvars)

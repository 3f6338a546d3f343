"""Code of libraries, which is not looked into: it does not change between two calls."""

from __future__ import annotations

import functools
import operator
import sys
import types
from typing import Any

from pyro_vae.compiled.reads import Reads, reads

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


def is_library(thing: Any) -> bool:
    """Whether it is a library's code, which does not change."""
    if isinstance(thing, types.ModuleType):
        module = thing.__name__
    elif isinstance(thing, types.FunctionType):  # where it was written, whatever it wraps
        module = thing.__globals__.get("__name__", "")
    elif isinstance(thing, (types.BuiltinFunctionType, type)):
        module = getattr(thing, "__module__", None) or "builtins"
    else:
        return False
    return str(module).split(".")[0] in _LIBRARIES  # of some types in C it is not text


def holds_more(function: Any) -> bool:
    """Whether a library's function was made around something: a user's function, or the object whose method it is."""
    if isinstance(function, types.FunctionType):
        return function.__closure__ is not None
    if isinstance(function, (types.BuiltinMethodType, types.MethodWrapperType)):
        return not isinstance(function.__self__, (types.ModuleType, type, type(None)))
    return False


def names_sought(getter: operator.attrgetter[Any] | operator.methodcaller) -> frozenset[str]:
    """The attributes that an object of ``operator`` loads.

    Example:
        >>> import operator
        >>> from pyro_vae.compiled.libraries import names_sought
        >>> sorted(names_sought(operator.attrgetter("scale", "prior.loc")))
        ['loc', 'prior', 'scale']
    """
    made: Any = getter.__reduce__()
    maker, arguments = made[:2]
    if isinstance(maker, functools.partial):  # of a method that is called with keywords
        arguments = (*maker.args, *arguments)
    words = arguments if isinstance(getter, operator.attrgetter) else arguments[:1]
    return frozenset(name for word in words for name in str(word).split("."))


@functools.lru_cache(maxsize=1024)
def attributes_read(base: type) -> frozenset[str]:
    """The attributes that the methods of a library's class load."""
    found = Reads()
    for value in vars(base).values():
        value = getattr(value, "fget", getattr(value, "__func__", value))
        code = getattr(value, "__code__", None)
        if isinstance(code, types.CodeType):
            found |= reads(code)
    return found.attributes

"""Code of libraries, which is not looked into: it does not change between two calls."""

from __future__ import annotations

import functools
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

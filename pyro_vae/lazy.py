"""Faces of packages whose names load where they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package that hands on names of its modules.

    Args:
        package: its ``__name__``.
        homes: the module of each name, below the package.

    Example:
        >>> import pyro_vae.diagnostics
        >>> from pyro_vae.lazy import attach
        >>> load, names = attach("pyro_vae.diagnostics", {"accuracy": "classifier"})
        >>> load("accuracy").__module__
        'pyro_vae.diagnostics.classifier'
    """
    namespace = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        return namespace[name]

    def names() -> list[str]:
        return sorted({*namespace, *homes})

    return load, names

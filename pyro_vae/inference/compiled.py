"""The names of ``pyro_vae.compiled`` where they once were, for one release."""

from __future__ import annotations

import warnings
from typing import Any

from pyro_vae import compiled

__all__ = list(compiled.__all__)


def __getattr__(name: str) -> Any:
    if name not in compiled.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"pyro_vae.inference.compiled.{name} is now pyro_vae.compiled.{name}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(compiled, name)

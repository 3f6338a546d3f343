"""Variational autoencoders as ordinary Pyro programs, fast, and checked.

``fit`` trains a guide for a model, ``load`` opens a run that was written, ``resume`` goes on with one.  Importing this
package is quick; torch and Pyro load when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_vae.config import FitConfig
    from pyro_vae.fitting import Interrupted, fit, load, resume
    from pyro_vae.run import Run

__version__ = "0.1.0"
__all__ = ["FitConfig", "Interrupted", "Run", "fit", "load", "resume"]

_HOMES = {
    "FitConfig": "config",
    "Interrupted": "fitting",
    "Run": "run",
    "fit": "fitting",
    "load": "fitting",
    "resume": "fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

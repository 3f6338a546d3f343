"""The names of what was once one package, handed on for one release."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_HOMES = {
    "OBJECTIVES": "objectives",
    "RESAMPLINGS": "training",
    "Chains": "posterior",
    "CompiledRenyiELBO": "compiled",
    "CompiledTraceEnum_ELBO": "compiled",
    "CompiledTraceMeanField_ELBO": "compiled",
    "CompiledTrace_ELBO": "compiled",
    "Constant": "training",
    "Cyclical": "training",
    "Draws": "pairs",
    "Linear": "training",
    "Objective": "objectives",
    "Pair": "pairs",
    "Resampling": "training",
    "Schedule": "training",
    "Structure": "pairs",
    "Target": "posterior",
    "Terms": "pairs",
    "Trainer": "training",
    "draw": "pairs",
    "draw_terms": "pairs",
    "label_distribution": "pairs",
    "nuts": "posterior",
    "parse_schedule": "training",
    "temper": "pairs",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"pyro_vae.{_HOMES[name]}"
    warnings.warn(f"pyro_vae.inference.{name} is now {home}.{name}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(home), name)

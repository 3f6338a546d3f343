"""Known systems by name: each file says where its system comes from and holds its settings, nothing else.

A preset is a set of defaults: whatever is said beside it wins.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from pyro_vae.errors import InputError, nearest

PRESETS = tuple(module.name for module in pkgutil.iter_modules(__path__))


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, for ``pyro_vae.fit(**preset(name))``.

    Raises:
        InputError: if there is none of that name.

    Example:
        >>> from pyro_vae.config import FitConfig
        >>> from pyro_vae.presets import preset
        >>> preset("mlp_vae")["network"]
        'mlp:hidden=200'
        >>> config = FitConfig.from_settings(**preset("mlp_vae") | {"data": "digits"})
        >>> config.data, config.latent_dim
        ('digits', 20)
    """
    if name not in PRESETS:
        raise InputError("a known preset", repr(name), nearest(name, PRESETS))
    settings: dict[str, Any] = dict(importlib.import_module(f"{__name__}.{name}").SETTINGS)
    return settings


def describe(name: str) -> str:
    """The first sentence of a preset's documentation.

    Example:
        >>> from pyro_vae.presets import describe
        >>> describe("mlp_vae")
        'The textbook VAE on MNIST: fully connected, 784-200-20 and back, ReLU, a standard normal prior'
    """
    preset(name)
    return (importlib.import_module(f"{__name__}.{name}").__doc__ or "").split("\n")[0].rstrip(".")

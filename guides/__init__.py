"""A door to ``pyro_vae.guides``, for a checkout."""

from pyro_vae.guides import *  # noqa: F403
from pyro_vae.guides import __all__ as __all__

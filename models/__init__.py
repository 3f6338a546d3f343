"""A door to ``pyro_vae.models``, for a checkout."""

from pyro_vae.models import *  # noqa: F403
from pyro_vae.models import __all__ as __all__

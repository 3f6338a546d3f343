"""The amortized guides q(z[, y] | x), one family a file."""

from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.guides.mean_field import MeanField
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["GUIDES", "Guide", "MeanField"]

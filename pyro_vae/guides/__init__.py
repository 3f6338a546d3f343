"""The amortized guides q(z[, y] | x), one family per file."""

from pyro_vae.guides.amortized import amortize
from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.guides.flows import IAF, Householder, Planar, Spline
from pyro_vae.guides.full_rank import FullRank
from pyro_vae.guides.low_rank import LowRank
from pyro_vae.guides.mean_field import MeanField
from pyro_vae.guides.mixture import Mixture
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "GUIDES",
    "IAF",
    "FullRank",
    "Guide",
    "Householder",
    "LowRank",
    "MeanField",
    "Mixture",
    "Planar",
    "Spline",
    "amortize",
]

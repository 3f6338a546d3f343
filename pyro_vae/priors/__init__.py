"""The priors p(z), one per file."""

from pyro_vae.priors.base import PRIORS
from pyro_vae.priors.flow import AutoregressiveFlow
from pyro_vae.priors.mixture import NormalMixture
from pyro_vae.priors.normal import StandardNormal
from pyro_vae.priors.realnvp import ActNorm, RealNVP, meet_first_batch
from pyro_vae.priors.vampprior import VampPrior, follow
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "PRIORS",
    "ActNorm",
    "AutoregressiveFlow",
    "NormalMixture",
    "RealNVP",
    "StandardNormal",
    "VampPrior",
    "follow",
    "meet_first_batch",
]

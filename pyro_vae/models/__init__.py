"""The generative programs p(x, z[, y]), one per file."""

from pyro_vae.models.auxiliary import ADGM, SDGM
from pyro_vae.models.banana import Banana
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.models.cvae import CVAE
from pyro_vae.models.db_vae import DBVAE
from pyro_vae.models.hvae import HVAE
from pyro_vae.models.linear_gaussian import LinearGaussian
from pyro_vae.models.ss_vae import SSVAE
from pyro_vae.models.vae import VAE
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "ADGM",
    "CVAE",
    "DBVAE",
    "HVAE",
    "MODELS",
    "SDGM",
    "SSVAE",
    "VAE",
    "Banana",
    "Latent",
    "LinearGaussian",
    "Model",
]

"""The generative programs p(x, z[, y]), one a file."""

from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.models.ss_vae import SSVAE
from pyro_vae.models.vae import VAE
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["MODELS", "SSVAE", "VAE", "Latent", "Model"]

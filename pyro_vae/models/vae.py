r"""The variational autoencoder's generative model, p(x, z) = p(z) p(x | z).

Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
from torch import Tensor, nn

from pyro_vae.columns import Column
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Shaped


@MODELS.register("vae")
class VAE(Model):
    """Variational autoencoder: p(z) p(x | z).

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        latent_dim: the dimension of z.
        prior: p(z), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | z); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder; default: an MLP.

    Example:
        >>> from pyro import poutine
        >>> from pyro_vae.models import VAE
        >>> model = VAE((1, 8, 8), latent_dim=2)
        >>> model().shape  # one image is generated
        torch.Size([1, 1, 8, 8])
        >>> trace = poutine.trace(model).get_trace(torch.ones(3, 1, 8, 8))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 32,
        *,
        prior: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        covariates: Sequence[Column] = (),
        network: Network | None = None,
    ) -> None:
        super().__init__(event_shape, (Latent("z", latent_dim),), likelihood, covariates)
        self.prior = prior or StandardNormal(latent_dim)
        self.decoder = (network or MLP()).decoder([latent_dim, *self.given_sizes], self.likelihood.params_shape)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z, *given)), obs=values)

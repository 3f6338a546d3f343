r"""The debiasing variational autoencoder: p(z) p(y | z) p(x | z), with q(y | x) and q(z | x) on one encoder.

Amini, Soleimany, Schwarting, Bhatia and Rus, *Uncovering and Mitigating Algorithmic Bias through Learned Latent
Structure*, 2019.  The label is a linear head on the latents here, so that the bound asks q(y | x) to agree with them
and labels shape the latents.  The guide's head classifies, the latents say how common an image is, and rare images are
drawn more often (see ``training.resampling``), so that the classifier learns from what the data have little of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pyro
from torch import Tensor, nn

from pyro_vae.columns import Column
from pyro_vae.conditionals import Categorical
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Shaped


@MODELS.register("db_vae")
class DBVAE(Model):
    """Debiasing VAE: label head and latents from one encoder, rare images drawn more often.

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        num_classes: the number of classes K of the label site "y".
        latent_dim: the dimension of z.
        prior: p(z), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | z); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder; default: an MLP.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import DBVAE
        >>> model = DBVAE((1, 8, 8), num_classes=3, latent_dim=2)
        >>> model.resampling
        'latent_histogram'
        >>> guide = MeanField(model)
        >>> guide.conditionals["y"].encoder is guide.conditionals["z"].encoder
        True
    """

    resampling: ClassVar[str] = "latent_histogram"

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_classes: int,
        latent_dim: int = 32,
        *,
        prior: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        covariates: Sequence[Column] = (),
        network: Network | None = None,
    ) -> None:
        latents = (Latent("y", num_classes, discrete=True), Latent("z", latent_dim))
        super().__init__(event_shape, latents, likelihood, covariates)
        self.prior = prior or StandardNormal(latent_dim)
        self.decoder = (network or MLP()).decoder([latent_dim, *self.given_sizes], self.likelihood.params_shape)
        self.label = Categorical(latent_dim, num_classes)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample("z", self.prior())
            pyro.sample("y", self.label(z), obs=y)
            return pyro.sample("x", self.likelihood(self.decoder(z, *given)), obs=values)

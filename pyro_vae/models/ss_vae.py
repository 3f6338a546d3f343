r"""The semi-supervised variational autoencoder, p(x, y, z) = p(y) p(z) p(x | y, z).

This is model M2 of Kingma, Rezende, Mohamed and Welling, *Semi-Supervised Learning with Deep Generative Models*, 2014:
y is the class, z the style, and y is latent wherever no label is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.columns import Column
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network, one_hot
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Shaped


@MODELS.register("ss_vae")
class SSVAE(Model):
    """Semi-supervised VAE (Kingma's M2): p(y) p(z) p(x | y, z), with a uniform p(y).

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        num_classes: the number of classes K of the label site "y".
        latent_dim: the dimension of the style z.
        prior: p(z), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | y, z); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder; default: an MLP.

    Example:
        >>> from pyro_vae.models import SSVAE
        >>> model = SSVAE((1, 8, 8), num_classes=10, latent_dim=2)
        >>> one_of_each = torch.cat([model(y=torch.tensor([label])) for label in range(10)])
        >>> one_of_each.shape
        torch.Size([10, 1, 8, 8])
    """

    label_logits: Tensor

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
        latents = (Latent("y", num_classes, discrete=True), Latent("z", latent_dim, given=("x", "y")))
        super().__init__(event_shape, latents, likelihood, covariates)
        self.num_classes = num_classes
        self.prior = prior or StandardNormal(latent_dim)
        self.decoder = (network or MLP()).decoder(
            [latent_dim, num_classes, *self.given_sizes], self.likelihood.params_shape
        )
        self.register_buffer("label_logits", torch.zeros(num_classes), persistent=False)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            y = pyro.sample("y", dist.Categorical(logits=self.label_logits), obs=y)
            z = pyro.sample("z", self.prior())
            params = self.decoder(z, one_hot(y, self.num_classes), *given)
            return pyro.sample("x", self.likelihood(params), obs=values)

r"""The hierarchical variational autoencoder, p(z_L) p(z_{L-1} | z_L) … p(z_1 | z_2) p(x | z_1).

Several stochastic layers, each normal given the one above, and a guide that goes bottom-up, q(z_1 | x) q(z_2 | z_1) …,
as in Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016, and Sonderby et al., *Ladder
Variational Autoencoders*, 2016.  The layers above z_1 are a learned prior for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyro
from torch import Tensor, nn

from pyro_vae.columns import Column
from pyro_vae.conditionals import Conditional, DiagonalNormal
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network, start_near_identity
from pyro_vae.option_types import Whole
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Shaped


@MODELS.register("hvae")
class HVAE(Model):
    """Hierarchical VAE: layers of latents, each normal given the one above.

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        latent_dim: the dimension of every layer.
        num_layers: the number L of layers, at least two; the sites are "z1", "z2", …, the top last.
        prior: p(z_L), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | z_1); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder and the maps between the layers; default: an MLP.

    Example:
        >>> from pyro_vae.models import HVAE
        >>> model = HVAE((1, 8, 8), latent_dim=2, num_layers=3)
        >>> for latent in model.latents:
        ...     print(latent.name, "given", *latent.given)
        z1 given x
        z2 given z1
        z3 given z2
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 32,
        num_layers: Whole = 2,
        *,
        prior: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        covariates: Sequence[Column] = (),
        network: Network | None = None,
    ) -> None:
        if num_layers < 2:
            raise InputError(
                "at least two stochastic layers for the model 'hvae'", str(num_layers), "use --model vae for one"
            )
        names = [f"z{layer}" for layer in range(1, num_layers + 1)]
        below = ["x", *names]
        latents = tuple(Latent(name, latent_dim, given=(below[i],)) for i, name in enumerate(names))
        super().__init__(event_shape, latents, likelihood, covariates)
        network = network or MLP()
        self.prior = prior or StandardNormal(latent_dim)
        self.decoder = network.decoder([latent_dim, *self.given_sizes], self.likelihood.params_shape)
        self.layers = nn.ModuleDict()
        for name in names[:-1]:
            encoder = network.for_vectors().encoder([(latent_dim,)])
            normal = DiagonalNormal(cast(int, encoder.num_features), latent_dim)
            start_near_identity(normal)  # near N(0, I) whatever is above: training begins as that of a VAE
            self.layers[name] = Conditional(encoder, normal)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        *lower, top = (latent.name for latent in self.latents)
        layers = self.layers  # read once: each read states all its parameters to Pyro
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample(top, self.prior())
            for name in reversed(lower):
                z = pyro.sample(name, layers[name](z))
            return pyro.sample("x", self.likelihood(self.decoder(z, *given)), obs=values)

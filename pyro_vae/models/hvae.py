r"""The hierarchical variational autoencoder, p(z_L) p(z_{L-1} | z_L) … p(z_1 | z_2) p(x | z_1).

Several stochastic layers, each normal given the one above, and a guide that goes bottom-up, q(z_1 | x) q(z_2 | z_1) …,
as in Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016, and Sonderby et al., *Ladder
Variational Autoencoders*, 2016.  The layers above z_1 are a learned prior for it.

With ``skip`` every layer is beside x in both programs: the decoder sees them all, p(x | z_1, …, z_L), and the guide
goes top-down, each layer given x and the one above, q(z_L | x) q(z_{L-1} | x, z_L) …, as with the two layers of Tomczak
and Welling, *VAE with a VampPrior*, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
        skip: whether the decoder sees every layer, not the lowest alone, and the guide draws each given x and the one
            above, not the one below.
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
        >>> for latent in HVAE((1, 8, 8), latent_dim=2, skip=True).latents:
        ...     print(latent.name, "given", *latent.given)
        z2 given x
        z1 given x z2
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 32,
        num_layers: Whole = 2,
        skip: bool = False,
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
        if skip:
            downwards = pairwise(reversed(names))
            latents = [Latent(names[-1], latent_dim), *(Latent(z, latent_dim, ("x", above)) for above, z in downwards)]
        else:
            latents = [Latent(z, latent_dim, (below,)) for below, z in pairwise(["x", *names])]
        super().__init__(event_shape, tuple(latents), likelihood, covariates)
        self.names, self.skip = tuple(names), skip
        network = network or MLP()
        self.prior = prior or StandardNormal(latent_dim)
        seen = [latent_dim] * (num_layers if skip else 1)
        self.decoder = network.decoder([*seen, *self.given_sizes], self.likelihood.params_shape)
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
        *lower, top = self.names
        layers = self.layers  # read once: each read states all its parameters to Pyro
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = [pyro.sample(top, self.prior())]
            for name in reversed(lower):
                z.insert(0, pyro.sample(name, layers[name](z[0])))
            seen = z if self.skip else z[:1]
            return pyro.sample("x", self.likelihood(self.decoder(*seen, *given)), obs=values)

    @property
    def prior_site(self) -> str:
        """The top layer."""
        return self.names[-1]

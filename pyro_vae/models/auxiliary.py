r"""Deep generative models of data and classes whose guide has an auxiliary variable a.

Maaloe, Sonderby, Sonderby and Winther, *Auxiliary Deep Generative Models*, 2016.  The guide is

    q(a | x) q(y | a, x) q(z | a, x, y),

so that q(z | x) and q(y | x), with a integrated out, are mixtures of more than one form.  The bound is

    E_q[log p(x, y, z, a) - log q(a | x) - log q(y | a, x) - log q(z | a, x, y)].

In ``adgm`` the model gives a last, p(y) p(z) p(x | y, z) p(a | x, y, z): the marginal p(x, y, z) is that of
``ss_vae``, and a is there for the guide alone.  In ``sdgm``, the one with skip connections, the data depend on a, which
is a second layer of latents: p(y) p(z) p(a | y, z) p(x | a, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.columns import Column
from pyro_vae.conditionals import Conditional, DiagonalNormal
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network, one_hot, start_near_identity
from pyro_vae.option_types import WholeOrNone
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Shaped


class _Auxiliary(Model):
    """What both have in common: p(y), p(z) and p(a | what it is given); see ``ADGM`` for the arguments."""

    label_logits: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_classes: int,
        latent_dim: int = 32,
        auxiliary_dim: WholeOrNone = None,
        *,
        prior: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        covariates: Sequence[Column] = (),
        network: Network | None = None,
    ) -> None:
        size = auxiliary_dim or latent_dim
        super().__init__(event_shape, _latents(num_classes, latent_dim, size), likelihood, covariates)
        self.num_classes, self.latent_dim, self.auxiliary_dim = num_classes, latent_dim, size
        self.prior = prior or StandardNormal(latent_dim)
        self.register_buffer("label_logits", torch.zeros(num_classes), persistent=False)
        self._make_networks(network or MLP())

    def _make_networks(self, network: Network) -> None:
        """Make the decoder and the conditional of a."""
        raise NotImplementedError

    def _conditional(self, encoder: nn.Module) -> Conditional:
        """p(a | what the encoder is given), near N(0, I) at the start: training begins as that of ``ss_vae``."""
        normal = DiagonalNormal(cast(int, encoder.num_features), self.auxiliary_dim)
        start_near_identity(normal)
        return Conditional(encoder, normal)


def _latents(num_classes: int, latent_dim: int, size: int) -> tuple[Latent, ...]:
    """The latent sites, as a guide has to know them."""
    return (
        Latent("a", size),
        Latent("y", num_classes, given=("x", "a"), discrete=True),
        Latent("z", latent_dim, given=("x", "a", "y")),
    )


@MODELS.register("adgm")
class ADGM(_Auxiliary):
    """Auxiliary deep generative model: p(y) p(z) p(x | y, z) p(a | x, y, z), with a uniform p(y).

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        num_classes: the number of classes K of the label site "y".
        latent_dim: the dimension of z.
        auxiliary_dim: the dimension of a; none: that of z.
        prior: p(z), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | y, z); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder and the encoder of p(a | x, y, z); default: an MLP.

    Example:
        >>> from pyro_vae.models import ADGM
        >>> model = ADGM((1, 8, 8), num_classes=10, latent_dim=2)
        >>> for latent in model.latents:
        ...     print(latent.name, "given", *latent.given)
        a given x
        y given x a
        z given x a y
        >>> model(y=torch.tensor([3])).shape
        torch.Size([1, 1, 8, 8])
    """

    def _make_networks(self, network: Network) -> None:
        sizes = [self.latent_dim, self.num_classes, *self.given_sizes]
        self.decoder = network.decoder(sizes, self.likelihood.params_shape)
        seen = self.likelihood.seen_shape
        self.auxiliary = self._conditional(network.encoder([seen, (self.num_classes,), (self.latent_dim,)]))
        self.seen = self.likelihood.view()

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            y = pyro.sample("y", dist.Categorical(logits=self.label_logits), obs=y)
            z = pyro.sample("z", self.prior())
            label = one_hot(y, self.num_classes)
            own = pyro.sample("x", self.likelihood(self.decoder(z, label, *given)), obs=values)
            seen = self.seen(own).nan_to_num(0.0)  # a may depend on whatever there is of x
            pyro.sample("a", self.auxiliary(seen, label, z))
            return own


@MODELS.register("sdgm")
class SDGM(_Auxiliary):
    """Skip deep generative model: p(y) p(z) p(a | y, z) p(x | a, y, z), with a uniform p(y).

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        num_classes: the number of classes K of the label site "y".
        latent_dim: the dimension of z.
        auxiliary_dim: the dimension of a; none: that of z.
        prior: p(z), a module whose ``forward()`` returns it; default: the standard normal.
        likelihood: p(x | a, y, z); default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given.
        network: makes the decoder and the encoder of p(a | y, z); default: an MLP.

    Example:
        >>> from pyro_vae.models import SDGM
        >>> model = SDGM((1, 8, 8), num_classes=10, latent_dim=2, auxiliary_dim=3)
        >>> [(latent.name, latent.size) for latent in model.latents]
        [('a', 3), ('y', 10), ('z', 2)]
        >>> model(y=torch.tensor([3])).shape
        torch.Size([1, 1, 8, 8])
    """

    def _make_networks(self, network: Network) -> None:
        sizes = [self.auxiliary_dim, self.latent_dim, self.num_classes, *self.given_sizes]
        self.decoder = network.decoder(sizes, self.likelihood.params_shape)
        self.auxiliary = self._conditional(network.for_vectors().encoder([(self.num_classes,), (self.latent_dim,)]))

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *own"]:
        values, given = self.split(x)
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            y = pyro.sample("y", dist.Categorical(logits=self.label_logits), obs=y)
            z = pyro.sample("z", self.prior())
            label = one_hot(y, self.num_classes)
            a = pyro.sample("a", self.auxiliary(label, z))
            return pyro.sample("x", self.likelihood(self.decoder(a, z, label, *given)), obs=values)

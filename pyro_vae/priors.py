r"""Priors: modules whose ``forward()`` returns p(z).

The event dimension is declared, so the site is one line: ``z = pyro.sample("z", self.prior())``.
"""

from __future__ import annotations

from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import start_near_identity
from pyro_vae.option_types import Whole
from pyro_vae.registry import Registry

PRIORS: Registry[nn.Module] = Registry("prior", ("latent_dim",))


@PRIORS.register("normal")
class StandardNormal(nn.Module):
    r"""The standard normal, N(0, I).

    Args:
        latent_dim: the dimension D of z.

    Example:
        >>> from pyro_vae.priors import StandardNormal
        >>> prior = StandardNormal(latent_dim=2)
        >>> prior().sample([5]).shape
        torch.Size([5, 2])
        >>> prior().log_prob(torch.zeros(2))  # minus the logarithm of two pi
        tensor(-1.8379)
    """

    zero: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # carries device and dtype

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        loc = self.zero.expand(self.latent_dim)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)


@PRIORS.register("mixture")
class NormalMixture(nn.Module):
    r"""A learned mixture of diagonal normals, sum_k pi_k N(mu_k, diag sigma_k^2).

    Dilokthanakul et al., *Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders*, 2016, use it
    for latents that cluster.

    Args:
        latent_dim: the dimension D of z.
        num_components: the number K of normals.

    Example:
        >>> from pyro_vae.priors import NormalMixture
        >>> prior, z = NormalMixture(latent_dim=2, num_components=3), torch.zeros(2)
        >>> components = torch.distributions.Normal(prior.locs, prior.log_scales.exp()).log_prob(z).sum(-1)
        >>> torch.allclose(prior().log_prob(z).exp(), components.exp().mean())  # the weights start equal
        True
    """

    def __init__(self, latent_dim: int, num_components: Whole = 10) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.locs = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim))

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        components = dist.Normal(self.locs, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


@PRIORS.register("flow")
class AutoregressiveFlow(nn.Module):
    r"""A learned masked autoregressive flow of a standard normal.

    z = T_K o … o T_1(e), e ~ N(0, I), each T_k the inverse of an affine autoregressive map with the dimensions
    reversed in between.  Densities take one pass, which is what training needs; samples take D.  Papamakarios,
    Pavlakou and Murray, *Masked Autoregressive Flow for Density Estimation*, 2017; as a prior, Chen et al.,
    *Variational Lossy Autoencoder*, 2017.

    Args:
        latent_dim: the dimension D of z.
        num_transforms: how many maps are chained.

    Example:
        >>> from pyro_vae.priors import AutoregressiveFlow
        >>> side = torch.linspace(-8, 8, 81)
        >>> grid = torch.cartesian_prod(side, side)
        >>> density = AutoregressiveFlow(latent_dim=2)().log_prob(grid).exp()
        >>> round(density.sum().item() * 0.2**2, 3)  # it integrates to one
        1.0
    """

    def __init__(self, latent_dim: int, num_transforms: Whole = 2) -> None:
        super().__init__()
        self.base = StandardNormal(latent_dim)
        orders = [torch.arange(latent_dim), torch.arange(latent_dim).flip(0)]
        self.maps = nn.ModuleList()
        for index in range(num_transforms):
            order, width = orders[index % 2], max(64, latent_dim + 1)
            network = AutoRegressiveNN(latent_dim, [width], permutation=cast(torch.LongTensor, order))
            start_near_identity(network)
            self.maps.append(dist.transforms.AffineAutoregressive(network))

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        return dist.TransformedDistribution(self.base(), [cast(Any, step).inv for step in self.maps])


@PRIORS.register("vampprior")
class VampPrior(nn.Module):
    r"""The variational mixture of posteriors, 1/K sum_k q(z | u_k) with K learned pseudo-inputs u_k.

    The best prior for a guide is its aggregate posterior, of which this is a compressed form: Tomczak and Welling, *VAE
    with a VampPrior*, 2018.  The pseudo-inputs live where the guide's last conditional finds its inputs: images, images
    with labels, or the latents of the layer below.  The prior has to know the guide: ``prior.follow(guide)``, which
    ``fit`` does for parts that it builds; the guide's parameters stay the guide's.

    Args:
        latent_dim: the dimension D of z.
        num_components: the number K of pseudo-inputs.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.priors import VampPrior
        >>> model = VAE((4,), latent_dim=2, prior=VampPrior(latent_dim=2, num_components=10))
        >>> guide = MeanField(model)
        >>> model.prior.follow(guide)
        >>> model.prior().component_distribution.batch_shape  # the guide's posterior of each pseudo-input
        torch.Size([10])
    """

    def __init__(self, latent_dim: int, num_components: Whole = 500) -> None:
        super().__init__()
        self.latent_dim, self.num_components = latent_dim, num_components
        self.pseudo_inputs = nn.ParameterList()
        self._followed: tuple[nn.Module, ...] = ()  # a tuple, so that the guide is not part of the model

    def follow(self, guide: Any) -> None:
        """Mix the posteriors of this guide, from pseudo-inputs that are drawn now.

        Raises:
            InputError: if the guide's density is known at its own draws only.
        """
        conditional, shapes = guide.last_factor()
        self._followed = (conditional,)
        noise = {name: torch.randn(self.num_components, *shape) for name, shape in shapes.items()}
        if "x" in noise:
            noise["x"] = (0.5 + 0.5 * noise["x"]).clamp(0, 1)  # as images are
        self.pseudo_inputs = nn.ParameterList(noise.values())
        try:
            with torch.no_grad():
                self().log_prob(torch.zeros(2, self.latent_dim))
        except (NotImplementedError, KeyError, RuntimeError):
            raise InputError(
                "a guide with a density that is quick to evaluate at any point, for the prior 'vampprior'",
                "one without",
                "use --guide mean_field, full_rank, low_rank, householder or mixture, or --prior flow",
            ) from None

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,).

        Raises:
            InputError: if the prior follows no guide.
        """
        if not self._followed:
            raise InputError("a guide whose posteriors to mix", "none", "call prior.follow(guide)")
        components = self._followed[0](*self.pseudo_inputs)
        weights = dist.Categorical(logits=self.pseudo_inputs[0].new_zeros(self.num_components))
        return dist.MixtureSameFamily(weights, components)


def follow(model: nn.Module, guide: Any) -> None:
    """Let those parts of a model that follow a guide follow this one.

    Raises:
        InputError: if one cannot.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.priors import VampPrior, follow
        >>> model = VAE((4,), latent_dim=2, prior=VampPrior(latent_dim=2, num_components=10))
        >>> follow(model, MeanField(model))
        >>> model().shape
        torch.Size([1, 4])
    """
    for part in model.modules():
        if isinstance(part, VampPrior):
            part.follow(guide)

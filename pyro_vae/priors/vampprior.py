"""The variational mixture of posteriors as a prior, and the parts of a model that follow a guide."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyro_vae.errors import InputError
from pyro_vae.option_types import Whole
from pyro_vae.priors.base import PRIORS


@PRIORS.register("vampprior")
class VampPrior(nn.Module):
    r"""The variational mixture of posteriors, 1/K sum_k q(z | u_k) with K learned pseudo-inputs u_k.

    The best prior for a guide is its aggregate posterior, of which this is a compressed form: Tomczak and Welling, *VAE
    with a VampPrior*, 2018.  The pseudo-inputs live where the guide's conditional of z finds its inputs: images, images
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
        conditional, shapes = guide.prior_factor()
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

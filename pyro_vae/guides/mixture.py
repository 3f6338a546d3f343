r"""The mixture guide: q(z | x) = sum_k pi_k(x) N(z; mu_k(x), diag sigma_k(x)^2).

For posteriors with several modes.  Gradients reach the weights too: Pyro's mixture has pathwise derivatives (Jankowiak
and Karaletsos, *Pathwise Derivatives for Multivariate Distributions*, 2019), which need at least two latent dimensions.

With ``shared`` the weights are equal and all components come from one network, which is told by an indicator e_k which
component it is to make,

    q(z | x) = 1/K sum_k N(z; mu(h_k), diag sigma(h_k)^2),    h_k = relu(W f(x) + V e_k),

so that there can be many: Kviman, Molen, Hotti, Kurt, Elvira and Lagergren, *Cooperation in the Latent Space: The
Benefits of Adding Mixture Components in Variational Autoencoders*, 2023, and Hotti, Kviman, Molen, Elvira and
Lagergren, *Efficient Mixture Learning in Black-Box Variational Inference*, 2024.  A draw takes one component by chance
and is scored under all K: 1/S sum_s log p(x, z_s) - log q(z_s | x) of S draws is an unbiased estimate of the bound of
the whole mixture with S decodings, whatever K is, and since the weights are not parameters, its gradient through the
chosen components is unbiased too.  (There S of K components are drawn without replacement; here draws are independent.)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.errors import InputError
from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Declares
from pyro_vae.networks import Network
from pyro_vae.option_types import Whole
from pyro_vae.shapes import Float


class NormalMixture(nn.Module):
    """K diagonal normals, with weights, means and log standard deviations linear in the features."""

    def __init__(self, num_features: int, size: int, num_components: int) -> None:
        super().__init__()
        if size < 2:
            raise InputError("at least two latent dimensions for the guide 'mixture'", str(size), "use --latent-dim 2")
        self.shape = (num_components, size)
        self.logits = nn.Linear(num_features, num_components)
        self.locs = nn.Linear(num_features, num_components * size)
        self.log_scales = nn.Linear(num_features, num_components * size)

    def forward(self, features: Float[Tensor, "... F"]) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        locs, log_scales = self.locs(features).unflatten(-1, self.shape), self.log_scales(features)
        return dist.MixtureOfDiagNormals(locs, log_scales.unflatten(-1, self.shape).exp(), self.logits(features))


class EqualMixture(dist.TorchDistribution):
    """A mixture of K diagonal normals with equal weights, of which a draw takes one by chance.

    Args:
        locs: the means, shape (..., K, D).
        scales: the standard deviations, of the same shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "locs": constraints.independent(constraints.real, 2),
        "scales": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, locs: Tensor, scales: Tensor, validate_args: bool | None = None) -> None:
        self.locs, self.scales = locs, scales
        super().__init__(locs.shape[:-2], locs.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> EqualMixture:
        shape = torch.Size(batch_shape) + self.locs.shape[-2:]
        return EqualMixture(self.locs.expand(shape), self.scales.expand(shape), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that are differentiable in the component that was taken."""
        shape, (num_components, size) = self._extended_shape(torch.Size(sample_shape)), self.locs.shape[-2:]
        chosen = torch.randint(num_components, (*shape[:-1], 1, 1), device=self.locs.device)
        whole, one = (*shape[:-1], num_components, size), (*shape[:-1], 1, size)
        loc, scale = (
            part.expand(whole).gather(-2, chosen.expand(one)).squeeze(-2) for part in (self.locs, self.scales)
        )
        return loc + scale * torch.randn_like(loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density under all K components."""
        each = dist.Normal(self.locs, self.scales, validate_args=False).log_prob(value.unsqueeze(-2)).sum(-1)
        return each.logsumexp(-1) - math.log(self.locs.shape[-2])

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., D)."""
        return self.locs.mean(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each entry, shape (..., D)."""
        return self.scales.square().mean(-2) + self.locs.var(-2, correction=0)


class SharedMixture(nn.Module):
    """K diagonal normals with equal weights, of one network of the features and an indicator of the component."""

    def __init__(self, num_features: int, size: int, num_components: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, num_features)
        self.indicator = nn.Parameter(torch.randn(num_components, num_features) / num_features**0.5)  # V, by rows
        self.loc = nn.Linear(num_features, size)
        self.log_scale = nn.Linear(num_features, size)

    def forward(self, features: Float[Tensor, "... F"]) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        hidden = (self.hidden(features).unsqueeze(-2) + self.indicator).relu()
        return EqualMixture(self.loc(hidden), self.log_scale(hidden).exp())


@GUIDES.register("mixture")
class Mixture(Guide):
    """Mixture of diagonal normals.

    Args:
        model: the model whose latent sites this guide samples.
        num_components: the number K of normals.
        shared: whether they have equal weights and come from one network, so that there can be many of them.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site; default: ``network``.

    Example:
        >>> from pyro_vae.errors import InputError
        >>> from pyro_vae.guides import Mixture
        >>> from pyro_vae.models import VAE
        >>> Mixture(VAE((4,), latent_dim=2), num_components=3).posterior(torch.rand(5, 4)).locs.shape
        torch.Size([5, 3, 2])
        >>> Mixture(VAE((4,), latent_dim=1), num_components=50, shared=True).posterior(torch.rand(5, 4)).mean.shape
        torch.Size([5, 1])
        >>> try:
        ...     Mixture(VAE((4,), latent_dim=1))
        ... except InputError as error:
        ...     print(error)
        expected at least two latent dimensions for the guide 'mixture'; got 1; use --latent-dim 2
    """

    fewest = 2

    def __init__(
        self,
        model: Declares,
        num_components: Whole = 3,
        shared: bool = False,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        family = partial(SharedMixture if shared else NormalMixture, num_components=num_components)
        super().__init__(model, family, network=network, classifier=classifier)

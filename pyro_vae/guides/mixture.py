r"""The mixture guide: q(z | x) = sum_k pi_k(x) N(z; mu_k(x), diag sigma_k(x)^2).

For posteriors with several modes.  Gradients reach the weights too: Pyro's mixture has pathwise derivatives (Jankowiak
and Karaletsos, *Pathwise Derivatives for Multivariate Distributions*, 2019), which need at least two latent dimensions.
"""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch import Tensor, nn

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


@GUIDES.register("mixture")
class Mixture(Guide):
    """Mixture of diagonal normals.

    Args:
        model: the model whose latent sites this guide samples.
        num_components: the number K of normals.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site; default: ``network``.

    Example:
        >>> from pyro_vae.errors import InputError
        >>> from pyro_vae.guides import Mixture
        >>> from pyro_vae.models import VAE
        >>> Mixture(VAE((4,), latent_dim=2), num_components=3).posterior(torch.rand(5, 4)).locs.shape
        torch.Size([5, 3, 2])
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
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        family = partial(NormalMixture, num_components=num_components)
        super().__init__(model, family, network=network, classifier=classifier)

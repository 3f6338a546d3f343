r"""The linear-Gaussian model, x = W z + b + s e with z and e standard normal: probabilistic principal components.

Tipping and Bishop, *Probabilistic Principal Component Analysis*, 1999.  Everything about it is known:

    p(x) = N(b, W W^T + s^2 I),     p(z | x) = N(M^{-1} W^T (x - b), s^2 M^{-1}),     M = W^T W + s^2 I,

so it says how close a guide comes to the posterior, and a bound to the evidence.
"""

from __future__ import annotations

import math
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.likelihoods import Gaussian
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.option_types import Positive
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Float, Shaped


@MODELS.register("linear_gaussian")
class LinearGaussian(Model):
    """Probabilistic PCA: a linear decoder and normal noise, with evidence and posterior in closed form.

    Args:
        event_shape: the shape of one datum.
        latent_dim: the dimension of z.
        sigma: how the noise scale is found; see ``likelihoods``.
        scale: the noise scale, or where finding it starts.

    Example:
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x, z = LinearGaussian((5,)), torch.randn(3, 5), torch.randn(3, 2)
        >>> joint = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x)
        >>> bayes = joint - model.posterior(x).log_prob(z)  # log p(x, z) - log p(z | x), the same at any z
        >>> torch.allclose(bayes, model.evidence(x), atol=1e-4)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 2,
        sigma: Literal["learned", "fixed"] = "learned",
        scale: Positive = 1.0,
    ) -> None:
        super().__init__(event_shape, (Latent("z", latent_dim),), Gaussian(tuple(event_shape), sigma, scale))
        self.prior = StandardNormal(latent_dim)
        self.decoder = nn.Linear(latent_dim, math.prod(self.event_shape))

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *event"]:
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z).unflatten(-1, self.event_shape)), obs=x)

    def evidence(self, x: Float[Tensor, "N *event"]) -> Float[Tensor, "N"]:
        r"""Log p(x), nats, shape (N,), for x of shape (N, \*event_shape)."""
        w, b, variance = self._affine()
        marginal = dist.LowRankMultivariateNormal(b, w, variance.expand(len(b)))
        log_prob: Tensor = marginal.log_prob(x.flatten(1))
        return log_prob

    def posterior(self, x: Shaped[Tensor, "N *event"]) -> dist.TorchDistribution:
        r"""p(z | x), of batch shape (N,) and event shape (latent_dim,), for x of shape (N, \*event_shape)."""
        w, b, variance = self._affine()
        precision = torch.eye(w.shape[1], dtype=w.dtype, device=w.device) + w.T @ w / variance
        loc = torch.linalg.solve(precision, ((x.flatten(1) - b) @ w / variance).T).T
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def _affine(self) -> tuple[Float[Tensor, "P D"], Float[Tensor, "P"], Float[Tensor, "..."]]:
        assert isinstance(self.likelihood, Gaussian)
        return self.decoder.weight, self.decoder.bias, (2 * self.likelihood.log_scale).exp()

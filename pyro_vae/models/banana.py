r"""A toy model with a curved posterior: x = W f(z) + b + s e, with f(z) = (z_2 + c (z_1^2 - 1), z_3, …, z_D).

Only f of the D standard normal latents is seen, so z_1 and z_2 trade off along a parabola: the posterior of an x is a
bent ridge that no normal follows, on which guides can be told apart.  The shape is that of the banana-shaped target of
Haario, Saksman and Tamminen, *Adaptive Proposal Distribution for Random Walk Metropolis Algorithm*, 1999.

All but one dimension of the posterior is known in closed form.  Given t = z_1, what is seen is s = f(z) with the prior
N(m(t) e_1, I), m(t) = c (t^2 - 1), so with L = I + W^T W / s^2 and h = L^{-1} W^T (x - b) / s^2

    s | t, x ~ N(h + m(t) g, L^{-1}),   g = L^{-1} e_1,
    p(t | x) prop. to exp(-t^2 / 2 - (1 - g_1) m(t)^2 / 2 + h_1 m(t)),

and an integral over a grid of t does the rest.  Where h_1 is large the ridge has two arms, far apart.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Gaussian
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.option_types import Positive
from pyro_vae.priors import StandardNormal
from pyro_vae.shapes import Float, Shaped

TAIL = 40.0  # nats below the peak, at which the grid over z_1 ends
POINTS_A_WIDTH = 10  # of that grid, over the width of the ridge where it is narrowest


@MODELS.register("banana")
class Banana(Model):
    """A toy whose posterior is a bent ridge: linear but for one squared latent.

    Args:
        event_shape: the shape of one datum.
        latent_dim: the dimension D of z, at least two.
        bend: c, how much the ridge bends.
        sigma: how the noise scale is found; see ``likelihoods``.
        scale: the noise scale s, or where finding it starts.

    Example:
        >>> from pyro_vae.models import Banana
        >>> model, x, z = Banana((5,)), torch.zeros(3, 5), torch.randn(3, 2)
        >>> bent = z[:, 1:] + model.bend * (z[:, :1] ** 2 - 1)
        >>> joint = model.prior().log_prob(z) + model.likelihood(model.decoder(bent)).log_prob(x)
        >>> bayes = joint - model.posterior(x).log_prob(z)  # log p(x, z) - log p(z | x), the same at any z
        >>> torch.allclose(bayes, model.evidence(x), atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 2,
        bend: Positive = 1.0,
        sigma: Literal["learned", "fixed"] = "fixed",
        scale: Positive = 0.3,
    ) -> None:
        if latent_dim < 2:
            raise InputError("at least two latent dimensions for the model 'banana'", "1", "use --latent-dim 2")
        super().__init__(event_shape, (Latent("z", latent_dim),), Gaussian(tuple(event_shape), sigma, scale))
        self.bend = bend
        self.prior = StandardNormal(latent_dim)
        self.decoder = nn.Linear(latent_dim - 1, math.prod(self.event_shape))

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *event"]:
        with pyro.plate("data", 1 if x is None else x.shape[0]):
            z = pyro.sample("z", self.prior())
            bent = z[..., 1] + self.bend * (z[..., 0].square() - 1)
            seen = torch.cat([bent.unsqueeze(-1), z[..., 2:]], -1)
            return pyro.sample("x", self.likelihood(self.decoder(seen).unflatten(-1, self.event_shape)), obs=x)

    def evidence(self, x: Float[Tensor, "N *event"]) -> Float[Tensor, "N"]:
        r"""Log p(x), nats, shape (N,), for x of shape (N, \*event_shape)."""
        w, b, variance = self._affine()
        posterior = self.posterior(x)
        at_zero = dist.LowRankMultivariateNormal(b, w, variance.expand(len(b)))  # of x where m(t) = 0
        log_evidence: Tensor = at_zero.log_prob(x.flatten(1).double()) + posterior.log_normalizer
        return log_evidence.to(x.dtype)

    def posterior(self, x: Shaped[Tensor, "N *event"]) -> BananaPosterior:
        r"""p(z | x), of batch shape (N,) and event shape (latent_dim,), for x of shape (N, \*event_shape)."""
        w, b, variance = self._affine()
        precision = torch.eye(w.shape[1], dtype=w.dtype, device=w.device) + w.T @ w / variance
        h = torch.linalg.solve(precision, ((x.flatten(1) - b) @ w / variance).T).T
        return BananaPosterior(h, precision, self.bend, x.dtype)

    def _affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, b and s^2, in double precision."""
        assert isinstance(self.likelihood, Gaussian)
        w, b, log_scale = self.decoder.weight, self.decoder.bias, self.likelihood.log_scale
        return w.double(), b.double(), (2 * log_scale.double()).exp()


class BananaPosterior(dist.TorchDistribution):
    """The posterior of a banana, exact but for a grid over z_1: a tenth of its width per step.

    Args:
        h: the offsets of the bent coordinates, shape (N, D - 1), double.
        precision: L, shape (D - 1, D - 1), double.
        bend: c.
        dtype: the dtype of draws and densities.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(self, h: Tensor, precision: Tensor, bend: float, dtype: torch.dtype) -> None:
        self.h, self.bend, self.dtype = h, bend, dtype
        self._seen = dist.MultivariateNormal(torch.zeros_like(h[0]), precision_matrix=precision)  # s - its mean
        self._g = self._seen.covariance_matrix[0]
        super().__init__(h.shape[:1], torch.Size([h.shape[1] + 1]), validate_args=False)
        alpha = 1 - self._g[0]
        up = h[:, 0].max().clamp(min=0)  # beyond the end, t^2 / 2 alone is TAIL more than what m(t) can make up for
        end = (1 + torch.minimum(up / bend, up.square()) / alpha + 2 * TAIL).sqrt().item()
        steps = math.ceil(POINTS_A_WIDTH * end * (1 + (2 * bend * end) ** 2) ** 0.5)
        self._step = end / steps
        self._t = self._step * torch.arange(-steps, steps + 1, dtype=h.dtype, device=h.device)
        log_density = self._log_density(self._t.unsqueeze(-1))
        self.log_normalizer = log_density.logsumexp(0) + math.log(self._step)
        self._weights = log_density.softmax(0)  # (points, N)

    @property
    def mean(self) -> Tensor:
        """Shape (N, D)."""
        m = self._bent(self._t) @ self._weights
        seen = self.h + m.unsqueeze(-1) * self._slope
        return torch.cat([torch.zeros_like(seen[:, :1]), seen], -1).to(self.dtype)

    @property
    def covariance_matrix(self) -> Tensor:
        """Shape (N, D, D); z_1 is correlated with none of the others, as the two arms are mirror images."""
        m = self._bent(self._t)
        spread = m.square() @ self._weights - (m @ self._weights).square()
        covariance = torch.zeros(*self.batch_shape, *2 * self.event_shape, dtype=m.dtype, device=m.device)
        covariance[:, 0, 0] = self._t.square() @ self._weights
        covariance[:, 1:, 1:] = self._seen.covariance_matrix + spread[:, None, None] * self._slope.outer(self._slope)
        return covariance.to(self.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, of shape (*sample_shape, N, D)."""
        shape = torch.Size(sample_shape)
        place = dist.Categorical(self._weights.T).sample(shape)
        t = self._t[place] + self._step * (torch.rand(place.shape, dtype=self.h.dtype, device=self.h.device) - 0.5)
        rest = self.h + self._bent(t).unsqueeze(-1) * self._slope + self._seen.sample(t.shape)
        return torch.cat([t.unsqueeze(-1), rest], -1).to(self.dtype)

    def log_prob(self, value: Float[Tensor, "*sample N D"]) -> Float[Tensor, "*sample N"]:
        """Log density of z, nats, shape (..., N) for z of shape (..., N, D)."""
        t, rest = value[..., 0].double(), value[..., 1:].double()
        seen = rest - self.h - self._bent(t).unsqueeze(-1) * self._slope
        log_prob: Tensor = self._log_density(t) - self.log_normalizer + self._seen.log_prob(seen)
        return log_prob.to(self.dtype)

    @property
    def _slope(self) -> Tensor:
        """What m(t) moves z_2, ..., z_D by: g - e_1."""
        first = torch.zeros_like(self._g)
        first[0] = 1
        return self._g - first

    def _bent(self, t: Tensor) -> Tensor:
        return self.bend * (t.square() - 1)

    def _log_density(self, t: Tensor) -> Tensor:
        """The log density of z_1 = t, as a prior times a likelihood that is 1 where m(t) = 0, shape (..., N)."""
        m = self._bent(t)
        return dist.Normal(0.0, 1.0).log_prob(t) - (1 - self._g[0]) * m.square() / 2 + self.h[:, 0] * m

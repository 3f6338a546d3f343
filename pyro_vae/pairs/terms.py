r"""The terms of the bound, per datum, for any pair.

One vectorized run draws S samples from the guide and scores them under the model, with label sites enumerated.  Let e
be the enumerated values and z the sampled ones, q(e, z | x) = q(e | x) q(z | x, e).  Then, with z_s drawn from q(z |
x, e),

    E_q[log p(x | z)]  ~= sum_e q(e | x) mean_s log p(x | z_s, e),
    KL(q || p)         ~= sum_e q(e | x) mean_s [log q(e | x) + log q(z_s | x, e) - log p(z_s, e)],
    log p(x)           ~= log mean_s sum_e p(x, z_s, e) / q(z_s | x, e).

The ELBO is the first minus the second.  The third is the importance-weighted likelihood of Burda, Grosse and
Salakhutdinov, *Importance Weighted Autoencoders*, 2016, with the labels summed out exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.shapes import Float, Shaped


@dataclass(frozen=True)
class Terms:
    """Log-probabilities, in nats, of S draws for each of N data under each of E enumerated values: shape (E, S, N).

    Args:
        observed: log p(x | z, e).
        prior: log p(z, e).
        sampled: log q(z | x, e).
        enumerated: log q(e | x).
        probabilities: q(e | x), whatever the scale of the others.
        means: E_q[z | x, e] of each sampled site (its draws where the mean is unknown), shape (E, S, N, D).

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair, draw_terms
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> terms = draw_terms(Pair(model, MeanField(model)).probe(x), x, num_samples=5)
        >>> terms.log_weights.shape, terms.latent_mean("z").shape
        (torch.Size([5, 3]), torch.Size([3, 2]))
        >>> terms.power_bound(1.0)[0] >= terms.elbo  # the importance bound of five draws is the tighter one
        tensor([True, True, True])
    """

    observed: Float[Tensor, "E S N"]
    prior: Float[Tensor, "E S N"]
    sampled: Float[Tensor, "E S N"]
    enumerated: Float[Tensor, "E S N"]
    probabilities: Float[Tensor, "E S N"]
    means: dict[str, Shaped[Tensor, "_ S N _"]]

    @classmethod
    def together(cls, parts: Sequence[Terms]) -> Terms:
        """The terms of several runs as those of one with all their draws."""
        if len(parts) == 1:
            return parts[0]

        def every(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts], 1)

        return cls(
            every("observed"),
            every("prior"),
            every("sampled"),
            every("enumerated"),
            every("probabilities"),
            {site: torch.cat([part.means[site] for part in parts], 1) for site in parts[0].means},
        )

    @property
    def log_likelihood(self) -> Float[Tensor, "N"]:
        """E_q[log p(x | z)] per datum, nats, shape (N,)."""
        return self._expectation(self.observed)

    @property
    def kl(self) -> Float[Tensor, "N"]:
        """KL(q(z | x) || p(z)) per datum, nats, shape (N,); a Monte Carlo estimate, so it can dip below 0."""
        return self._expectation(self.sampled + self.enumerated - self.prior)

    @property
    def elbo(self) -> Float[Tensor, "N"]:
        """The evidence lower bound per datum, nats, shape (N,)."""
        return self.log_likelihood - self.kl

    @property
    def log_ratios(self) -> Float[Tensor, "E S N"]:
        """The log-ratios of model and guide given the enumerated values, log p(x, z, e) / q(z | x, e), (E, S, N)."""
        return self.observed + self.prior - self.sampled

    @property
    def log_weights(self) -> Float[Tensor, "S N"]:
        """The log importance weights, shape (S, N), whose mean of exponentials estimates p(x)."""
        return self.log_ratios.logsumexp(0)

    def over_labels(self, bounds: Float[Tensor, "E N"]) -> Float[Tensor, "N"]:
        """sum_e q(e | x) [bound_e - log q(e | x)], shape (N,), from bounds on log p(x, e) of shape (E, N)."""
        return (self.probabilities[:, 0] * (bounds - self.enumerated[:, 0])).sum(0)

    def power_bound(self, power: float) -> Float[Tensor, "E N"]:
        """1 / r log mean_s w_s^r over the draws of each enumerated value, shape (E, N); r = 1: importance bound."""
        total = (power * self.log_ratios).logsumexp(1)
        return (total - math.log(self.log_ratios.shape[1])) / power

    def latent_mean(self, site: str) -> Float[Tensor, "N D"]:
        """E_q[z | x] of a sampled site, shape (N, D)."""
        return self._expectation(self.means[site])

    def _expectation(self, term: Float[Tensor, "_ S N *unit"]) -> Float[Tensor, "N *unit"]:
        weights = self.probabilities
        return (weights.view(weights.shape + (1,) * (term.dim() - 3)) * term).sum(0).mean(0)

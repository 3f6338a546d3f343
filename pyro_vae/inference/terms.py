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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.runtime import NonlocalExit
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.inference.pair import DATA_PLATE, LABEL_SITE, Pair, Structure
from pyro_vae.inference.traces import distribution_at, log_prob_at, value_at


@dataclass(frozen=True)
class Terms:
    """Log-probabilities, in nats, of S draws for each of N data under each of E enumerated values: shape (E, S, N).

    Args:
        observed: log p(x | z, e).
        prior: log p(z, e).
        sampled: log q(z | x, e).
        enumerated: log q(e | x).
        means: E_q[z | x, e] of each sampled site (its draws where the mean is unknown), shape (E, S, N, D).
    """

    observed: Tensor
    prior: Tensor
    sampled: Tensor
    enumerated: Tensor
    means: dict[str, Tensor]

    @property
    def log_likelihood(self) -> Tensor:
        """E_q[log p(x | z)] per datum, nats, shape (N,)."""
        return self._expectation(self.observed)

    @property
    def kl(self) -> Tensor:
        """KL(q(z | x) || p(z)) per datum, nats, shape (N,); a Monte Carlo estimate, so it can dip below 0."""
        return self._expectation(self.sampled + self.enumerated - self.prior)

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound per datum, nats, shape (N,)."""
        return self.log_likelihood - self.kl

    @property
    def log_weights(self) -> Tensor:
        """The log importance weights, shape (S, N), whose mean of exponentials estimates p(x)."""
        return (self.observed + self.prior - self.sampled).logsumexp(0)

    def latent_mean(self, site: str) -> Tensor:
        """E_q[z | x] of a sampled site, shape (N, D)."""
        return self._expectation(self.means[site])

    def _expectation(self, term: Tensor) -> Tensor:
        weights = self.enumerated.exp()
        return (weights.view(weights.shape + (1,) * (term.dim() - 3)) * term).sum(0).mean(0)


def draw_terms(pair: Pair, structure: Structure, x: Tensor, num_samples: int = 1) -> Terms:
    r"""Draw from the guide and score the draws.

    Args:
        pair: the model and the guide.
        structure: what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        num_samples: draws a datum, S.

    Raises:
        InputError: if a site lies outside the plate "data", so that nothing can be said per datum.
    """
    q, layout = _draw_guide(pair, structure, x, num_samples)
    samples = _samples_plate(structure, num_samples)
    with pair.scope(), torch.no_grad(), poutine.block():
        with samples, poutine.trace() as generated, poutine.replay(trace=q):
            pair.model(*pair.arguments(x, None))
    p = prune_subsample_sites(generated.trace)
    q.compute_log_prob()
    p.compute_log_prob()
    drawn = [name for name in structure.latent if name not in structure.enumerated]
    groups = (
        layout.total(log_prob_at(p, name) for name in p.observation_nodes),
        layout.total(log_prob_at(p, name) for name in structure.latent),
        layout.total(log_prob_at(q, name) for name in drawn),
        layout.total(log_prob_at(q, name) for name in structure.enumerated),
    )
    observed, prior, sampled, enumerated = (term.flatten(0, -3) for term in torch.broadcast_tensors(*groups))
    means = {name: layout.means(distribution_at(q, name), value_at(q, name)) for name in drawn}
    return Terms(observed, prior, sampled, enumerated, means)


def draw_means(pair: Pair, structure: Structure, x: Tensor, num_samples: int = 1) -> dict[str, Tensor]:
    """E_q[z | x] of each sampled site, shape (N, D), from the guide alone; arguments and errors as ``draw_terms``."""
    q, layout = _draw_guide(pair, structure, x, num_samples)
    q.compute_log_prob(lambda name, _: name in structure.enumerated)
    weights = layout.total(log_prob_at(q, name) for name in structure.enumerated).flatten(0, -3).exp().unsqueeze(-1)
    drawn = [name for name in structure.latent if name not in structure.enumerated]
    means = {name: layout.means(distribution_at(q, name), value_at(q, name)) for name in drawn}
    return {name: (weights * mean).sum(0).mean(0) for name, mean in means.items()}


def label_distribution(pair: Pair, x: Tensor) -> dist.TorchDistribution:
    r"""q(y | x): the distribution at the guide's label site; the guide runs no further than that.

    Args:
        pair: a pair with a label site "y".
        x: data of shape (N, \*event_shape).

    Returns:
        A distribution over class indices, of batch shape (N,).
    """
    with pair.scope():
        try:
            with poutine.escape(escape_fn=lambda site: site["name"] == LABEL_SITE):
                pair.guide(*pair.arguments(x, None))
        except NonlocalExit as reached:
            return cast(dist.TorchDistribution, reached.site["fn"])
    raise InputError(f"a guide that samples the label site {LABEL_SITE!r}", "one that does not", "use a labelled model")


def _draw_guide(pair: Pair, structure: Structure, x: Tensor, num_samples: int) -> tuple[poutine.Trace, _Layout]:
    if structure.data_dim is None:
        raise InputError(
            f"every sample site inside pyro.plate({DATA_PLATE!r}, …)",
            "one outside it",
            "put the sites of each datum into that plate to get likelihoods per datum",
        )
    samples = _samples_plate(structure, num_samples)
    with pair.scope(), torch.no_grad(), poutine.block():
        with samples, poutine.trace() as guided, poutine.enum(first_available_dim=-structure.nesting - 2):
            pair.guide(*pair.arguments(x, None))
    return prune_subsample_sites(guided.trace), _Layout(structure, num_samples, x)


def _samples_plate(structure: Structure, num_samples: int) -> pyro.plate:
    return pyro.plate("_samples", num_samples, dim=-structure.nesting - 1)


class _Layout:
    """Where the batch dimensions of a vectorized trace lie: (1, enumerated…, samples, plates…)."""

    def __init__(self, structure: Structure, num_samples: int, x: Tensor) -> None:
        self.num_plates = structure.nesting
        self.num_dims = 1 + len(structure.enumerated) + 1 + structure.nesting
        self.others = [dim for dim in range(-structure.nesting, 0) if dim != structure.data_dim]
        self.zero = x.new_zeros((1,) * (1 + len(structure.enumerated)) + (num_samples, x.shape[0]))

    def total(self, log_probs: Iterable[Tensor]) -> Tensor:
        """The sum over sites and over every plate but the data's, of shape (1, enumerated…, S, N)."""
        total = self.zero
        for log_prob in log_probs:
            padded = log_prob.reshape((1,) * (self.num_dims - log_prob.dim()) + log_prob.shape)
            for dim in self.others:
                padded = padded.sum(dim, keepdim=True)
            total = total + padded.flatten(-self.num_plates)
        return total

    def means(self, q: dist.TorchDistribution, value: Tensor) -> Tensor:
        """The mean of a site, of shape (E, S, N, D); its draws where the distribution does not know its mean."""
        try:
            mean = q.mean
        except NotImplementedError:
            mean = value
        batch = value.shape[: value.dim() - q.event_dim]
        padded = mean.reshape((1,) * (self.num_dims - len(batch)) + batch + (-1,))
        return padded.reshape(
            padded.shape[: self.num_dims - self.num_plates - 1] + self.zero.shape[-2:] + (-1,)
        ).flatten(0, -4)

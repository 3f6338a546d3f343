r"""The KL term of the bound in parts, for objectives that treat them one by one.

A site's part is KL(q(z | x) || p(z)) itself where model and guide visit the sites in the same order and both factorize
over dimensions that know it in closed form, dimension by dimension; else the mean of log q - log p over the draws, as
one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.distributions as torch_dist
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives.base import ReparameterizedObjective
from pyro_vae.pairs.draws import Draws, draw
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, is_independent
from pyro_vae.shapes import Float, Shaped


class PenaltyObjective(ReparameterizedObjective):
    """An objective that has a penalty in the place of the KL term: -E_q[log p(x | z)] + beta penalty.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.

    Attributes:
        name: what it is registered as.
    """

    name: ClassVar[str]

    def prepare(self, probed: ProbedPair) -> ProbedPair:
        if probed.marginal:
            raise InputError(
                f"latent sites with a prior each, for the objective {self.name!r}",
                f"the site {probed.marginal[0]!r}, which the model sums out",
                "sample or enumerate it in the guide, or use --objective elbo",
            )
        return super().prepare(probed)

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        draws = draw(prepared, x, y)
        return beta * self.penalty(draws, epoch) - draws.terms.log_likelihood.mean()

    def penalty(self, draws: Draws, epoch: Number) -> Float[Tensor, ""]:
        """The penalty, a scalar in nats per datum, made of ``label_divergence`` and ``site_divergence``.

        Args:
            draws: of one run.
            epoch: how far training is.
        """
        raise NotImplementedError


def label_divergence(draws: Draws) -> Float[Tensor, "N"]:
    """KL(q(y | x) || p(y)) over all enumerated sites, nats, shape (N,); 0 where there are none."""
    terms = draws.terms
    prior = sum((draws.at(draws.p, name) for name in draws.structure.enumerated), start=0 * terms.enumerated)
    return (terms.probabilities * (terms.enumerated - prior)).sum(0).mean(0)


def site_divergence(draws: Draws, site: str) -> Float[Tensor, "N G"]:
    """The KL term of a sampled site in G groups of dimensions, nats, shape (N, G): G is 1 or the site's dimension."""
    probabilities = draws.terms.probabilities.unsqueeze(-1)
    return (probabilities * _groups(draws, site)).sum(0).mean(0)


def _groups(draws: Draws, site: str) -> Float[Tensor, "_ S N G"]:
    """The KL term of a site under each enumerated value and draw, shape (E or 1, S, N, G)."""
    p, q = distribution_at(draws.p, site), distribution_at(draws.q, site)
    if draws.structure.same_order and is_independent(p) and is_independent(q):
        try:
            parts = torch_dist.kl_divergence(q.base_dist, p.base_dist)
        except NotImplementedError:
            pass
        else:
            return draws.layout.features(parts, len(q.event_shape))
    return (draws.at(draws.q, site) - draws.at(draws.p, site)).unsqueeze(-1)

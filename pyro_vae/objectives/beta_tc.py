r"""The beta-TCVAE objective: the KL term averaged over the data, taken apart.

    E_x[KL(q(z | x) || p(z))] = I(x; z) + KL(q(z) || prod_d q(z_d)) + KL(prod_d q(z_d) || p(z)),

into mutual information, total correlation and what is left dimension by dimension, with beta on the total correlation.
Chen, Li, Grosse and Duvenaud, *Isolating Sources of Disentanglement in Variational Autoencoders*, 2018.  The aggregate
q(z) of N data is estimated from a batch of B by their minibatch stratified sampling: for a draw z from q(z | x_i),

    q(z) ~= 1/N q(z | x_i) + (N - 1)/N  1/(B - 1) sum_{j != i} q(z | x_j),

and likewise for each q(z_d).  The three parts of a draw add up to log q(z | x) - log p(z) whatever the estimate is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives.base import OBJECTIVES, ReparameterizedObjective
from pyro_vae.option_types import NotNegative
from pyro_vae.pairs.draws import Draws, draw
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, value_at
from pyro_vae.shapes import Float, Shaped


@OBJECTIVES.register("beta_tc")
class BetaTC(ReparameterizedObjective):
    """The beta-TCVAE objective: beta weighs the total correlation alone.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.
        num_data: the number of training data N; default: that of the batch.
        mutual_information: the weight of I(x; z).
        dimension_wise: the weight of KL(prod_d q(z_d) || p(z)).

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair, draw
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> draws = draw(probed, x)
        >>> torch.allclose(sum(OBJECTIVES.build("beta_tc", probed=probed).parts(draws)), draws.terms.kl, atol=1e-4)
        True
    """

    def __init__(
        self,
        probed: ProbedPair,
        num_data: int | None = None,
        mutual_information: NotNegative = 1.0,
        dimension_wise: NotNegative = 1.0,
    ) -> None:
        self.num_data = num_data
        self.weights = (mutual_information, dimension_wise)
        super().__init__(probed)

    def prepare(self, probed: ProbedPair) -> ProbedPair:
        super().prepare(probed)
        if probed.enumerated or probed.marginal or len(probed.latent) != 1:
            raise InputError(
                "one latent site, whose aggregate is taken apart, for the objective 'beta_tc'",
                f"the sites {', '.join([*probed.latent, *probed.marginal])}",
                "use --model vae, or --objective elbo with --beta",
            )
        if not probed.factorized:
            raise InputError(
                "a guide that factorizes over the latent dimensions, for the objective 'beta_tc'",
                "one that does not",
                "use --guide mean_field",
            )
        return probed

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        draws = draw(prepared, x, y)
        information, correlation, dimensions = self.parts(draws)
        kl = self.weights[0] * information + beta * correlation + self.weights[1] * dimensions
        return (kl - draws.terms.log_likelihood).mean()

    def parts(self, draws: Draws) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Mutual information, total correlation and dimension-wise KL per datum, nats, each of shape (B,)."""
        (site,) = draws.sampled
        z, q = value_at(draws.q, site).squeeze(0), distribution_at(draws.q, site).base_dist
        across = q.log_prob(z.unsqueeze(1))  # log q(z_id | x_j), shape (B, B, D)
        size = len(z)
        num_data = max(self.num_data or size, 2)
        others = math.log((num_data - 1) / num_data / (size - 1)) if size > 1 else 0.0
        log_weights = across.new_full((size, size), others)
        log_weights.fill_diagonal_(-math.log(num_data) if size > 1 else 0.0)
        joint = (across.sum(-1) + log_weights).logsumexp(1)
        product = (across + log_weights.unsqueeze(-1)).logsumexp(1).sum(-1)
        given = torch.einsum("iid->i", across)
        return given - joint, joint - product, product - draws.terms.prior[0, 0]

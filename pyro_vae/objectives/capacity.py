r"""A KL term held at a capacity that grows.

    -E_q[log p(x | z)] + beta |mean_n KL(x_n) - C|,

C rising in a straight line from 0 to ``nats`` over ``epochs``.  Burgess et al., *Understanding Disentangling in
beta-VAE*, 2018, equation 8; they use a large beta, such as 100 here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.objectives.base import OBJECTIVES
from pyro_vae.objectives.divergences import PenaltyObjective, label_divergence, site_divergence
from pyro_vae.option_types import NotNegative
from pyro_vae.pairs.draws import Draws
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.shapes import Float


@OBJECTIVES.register("capacity")
class Capacity(PenaltyObjective):
    """The ELBO with its KL term pulled to a target that rises.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.
        nats: where C ends, nats per datum.
        epochs: how many epochs it takes to get there.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> _ = torch.nn.init.zeros_(model.decoder.weight)  # now p(x | z) is p(x), without noise
        >>> objective = OBJECTIVES.build("capacity:nats=50,epochs=10", probed=Pair(model, MeanField(model)).probe(x))
        >>> round((objective(x, epoch=10.0) - objective(x, epoch=5.0)).item(), 2)  # C rose by 25, and the KL lies below
        25.0
    """

    name = "capacity"

    def __init__(self, probed: ProbedPair, nats: NotNegative = 25.0, epochs: NotNegative = 40.0) -> None:
        self.nats, self.epochs = nats, epochs
        super().__init__(probed)

    def penalty(self, draws: Draws, epoch: Number) -> Float[Tensor, ""]:
        kl = label_divergence(draws).mean()
        for site in draws.sampled:
            kl = kl + site_divergence(draws, site).mean(0).sum()
        target = self.nats * torch.as_tensor(epoch / self.epochs).clamp(max=1.0) if self.epochs else self.nats
        return (kl - target).abs()

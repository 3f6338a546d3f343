r"""Free bits: a part of the KL term that costs nothing.

    -E_q[log p(x | z)] + beta sum_g max(lambda_g, mean_n KL_g(x_n)),

over groups g of latent dimensions, so that a group is not pressed below lambda nats per dimension.  Kingma et al.,
*Improved Variational Inference with Inverse Autoregressive Flow*, 2016, appendix C.8.  The groups are single dimensions
where the KL is known dimension by dimension, else whole sites.  The KL of a label has no floor.
"""

from __future__ import annotations

from torch import Tensor

from pyro_vae.objectives.base import OBJECTIVES
from pyro_vae.objectives.divergences import PenaltyObjective, label_divergence, site_divergence
from pyro_vae.option_types import NotNegative
from pyro_vae.pairs.draws import Draws
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import value_at
from pyro_vae.shapes import Float


@OBJECTIVES.register("free_bits")
class FreeBits(PenaltyObjective):
    """The ELBO with a floor under its KL term.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.
        floor: lambda, nats per latent dimension.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> _ = torch.nn.init.zeros_(model.decoder.weight)  # now p(x | z) is p(x), and the rest is the KL term
        >>> objective = OBJECTIVES.build("free_bits:floor=10", probed=Pair(model, MeanField(model)).probe(x))
        >>> round((objective(x) + model.evidence(x).mean()).item(), 2)  # both dimensions lie at their floor
        20.0
    """

    name = "free_bits"

    def __init__(self, probed: ProbedPair, floor: NotNegative = 0.5) -> None:
        self.floor = floor
        super().__init__(probed)

    def penalty(self, draws: Draws, epoch: Number) -> Float[Tensor, ""]:
        kl = label_divergence(draws).mean()
        for site in draws.sampled:
            groups = site_divergence(draws, site).mean(0)
            floor = self.floor * value_at(draws.q, site).shape[-1] / len(groups)
            kl = kl + groups.clamp(min=floor).sum()
        return kl

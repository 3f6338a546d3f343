r"""The importance-weighted bound of k draws.

    L_k = E[log 1/k sum_s p(x, z_s) / q(z_s | x)],     ELBO = L_1 <= L_2 <= … <= log p(x).

Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.  Labels are not drawn but weighed: with a
label site the bound is sum_y q(y | x) [L_k(x, y) - log q(y | x)].
"""

from __future__ import annotations

from torch import Tensor

from pyro_vae.objectives.base import OBJECTIVES, SampledObjective
from pyro_vae.option_types import Whole
from pyro_vae.pairs.draws import Draws
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.shapes import Float


@OBJECTIVES.register("iwae")
class IWAE(SampledObjective):
    """The importance-weighted bound.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> objective = OBJECTIVES.build("iwae:num_samples=10000", probed=Pair(model, MeanField(model)).probe(x))
        >>> torch.allclose(objective(x), -model.evidence(x).mean(), atol=0.1)
        True
    """

    def __init__(self, probed: ProbedPair, num_samples: Whole = 10) -> None:
        super().__init__(probed, num_samples)

    def bound(self, draws: Draws) -> Float[Tensor, "N"]:
        terms = draws.terms
        return terms.over_labels(terms.power_bound(1.0))

r"""The variational Renyi bound of k draws.

    L_alpha = 1 / (1 - alpha) E[log 1/k sum_s (p(x, z_s) / q(z_s | x))^{1 - alpha}].

Li and Turner, *Renyi Divergence Variational Inference*, 2016.  alpha = 0 is the importance-weighted bound, alpha -> 1
the ELBO, and a negative alpha covers mass at the price of no longer being a lower bound.
"""

from __future__ import annotations

from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives.base import OBJECTIVES, SampledObjective
from pyro_vae.option_types import Whole
from pyro_vae.pairs.draws import Draws
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.shapes import Float


@OBJECTIVES.register("renyi")
class Renyi(SampledObjective):
    """The variational Renyi bound.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> objective = OBJECTIVES.build("renyi:alpha=0,num_samples=10000", probed=probed)  # alpha=0: that of iwae
        >>> torch.allclose(objective(x), -model.evidence(x).mean(), atol=0.1)
        True
    """

    def __init__(self, probed: ProbedPair, alpha: float = 0.5, num_samples: Whole = 10) -> None:
        if alpha == 1:
            raise InputError("alpha other than 1, where the bound is the ELBO", "1", "use --objective elbo")
        self.alpha = alpha
        super().__init__(probed, num_samples)

    def bound(self, draws: Draws) -> Float[Tensor, "N"]:
        terms = draws.terms
        return terms.over_labels(terms.power_bound(1 - self.alpha))

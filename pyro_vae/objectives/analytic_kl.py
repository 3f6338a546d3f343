r"""The evidence lower bound with its KL term in closed form where there is one.

    ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z))

(Kingma and Welling 2014, appendix B, for two normals).  Its expectation is that of ``elbo``, with less noise.  A site
whose KL has no closed form, of a flow or a mixture, falls back on its draws.
"""

from __future__ import annotations

from pyro.infer import ELBO, TraceMeanField_ELBO

from pyro_vae.errors import InputError
from pyro_vae.objectives.base import OBJECTIVES, PyroObjective
from pyro_vae.pairs.structure import Structure


@OBJECTIVES.register("analytic_kl")
class AnalyticKL(PyroObjective):
    """The ELBO with closed-form KL terms: Pyro's TraceMeanField_ELBO.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> _ = torch.nn.init.zeros_(model.decoder.weight)  # now p(x | z) is p(x), and all noise is that of the KL
        >>> objective = OBJECTIVES.build("analytic_kl", probed=Pair(model, MeanField(model)).probe(x))
        >>> torch.equal(objective(x), objective(x))  # though z is drawn anew
        True
    """

    def estimator(self, structure: Structure) -> ELBO:
        if structure.sums:
            summed = [*structure.enumerated, *structure.marginal, *structure.sampled]
            raise InputError(
                "latent sites that can be reparameterized, for the objective 'analytic_kl'",
                f"the discrete site {summed[0]!r}",
                "use --objective elbo",
            )
        if not structure.same_order:
            raise InputError(
                "a guide that visits the latent sites in the model's order, for the objective 'analytic_kl'",
                f"the order {', '.join(structure.latent)}, for which the KL has no closed form",
                "use --objective elbo",
            )
        return TraceMeanField_ELBO(max_plate_nesting=structure.nesting)

"""The evidence lower bound, by draws from the guide; discrete sites are summed over where guide or model ask for it."""

from __future__ import annotations

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO

from pyro_vae.objectives.base import OBJECTIVES, PyroObjective
from pyro_vae.pairs.structure import Structure


@OBJECTIVES.register("elbo")
class EvidenceLowerBound(PyroObjective):
    """The ELBO: Pyro's Trace_ELBO, or TraceEnum_ELBO where the guide or the model enumerates a site.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = SSVAE((1, 8, 8), num_classes=10), torch.rand(3, 1, 8, 8).round()
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> type(OBJECTIVES.build("elbo", probed=probed).estimator(probed)).__name__  # the label is summed over
        'TraceEnum_ELBO'
    """

    def estimator(self, structure: Structure) -> ELBO:
        kind = TraceEnum_ELBO if structure.sums else Trace_ELBO
        return kind(max_plate_nesting=structure.nesting)

"""The evidence lower bound, by draws from the guide."""

from __future__ import annotations

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO

from pyro_vae.objectives.base import OBJECTIVES, PyroObjective
from pyro_vae.pairs.structure import Structure


@OBJECTIVES.register("elbo")
class EvidenceLowerBound(PyroObjective):
    """The ELBO: Pyro's Trace_ELBO, or TraceEnum_ELBO where a site is enumerated."""

    def estimator(self, structure: Structure) -> ELBO:
        kind = TraceEnum_ELBO if structure.enumerated else Trace_ELBO
        return kind(max_plate_nesting=structure.nesting)

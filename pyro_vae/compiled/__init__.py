"""Programs as compiled graphs."""

from pyro_vae.compiled.elbos import (
    CompiledELBO,
    CompiledRenyiELBO,
    CompiledTrace_ELBO,
    CompiledTraceEnum_ELBO,
    CompiledTraceGraph_ELBO,
    CompiledTraceMeanField_ELBO,
    CompiledTraceTMC_ELBO,
)
from pyro_vae.compiled.graphs import NotCompiled, Recompiled

__all__ = [
    "CompiledELBO",
    "CompiledRenyiELBO",
    "CompiledTraceEnum_ELBO",
    "CompiledTraceGraph_ELBO",
    "CompiledTraceMeanField_ELBO",
    "CompiledTraceTMC_ELBO",
    "CompiledTrace_ELBO",
    "NotCompiled",
    "Recompiled",
]

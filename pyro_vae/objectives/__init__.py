"""Objectives: what turns a model, a guide and a batch into a loss; one per file."""

from pyro_vae.objectives.base import OBJECTIVES, Objective, PyroObjective, SampledObjective
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["OBJECTIVES", "Objective", "PyroObjective", "SampledObjective"]

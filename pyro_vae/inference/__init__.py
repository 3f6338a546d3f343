"""Objectives, schedules, the training loop and checkpoints: what fits a guide to a model."""

from pyro_vae.inference.compiled import (
    CompiledRenyiELBO,
    CompiledTrace_ELBO,
    CompiledTraceEnum_ELBO,
    CompiledTraceMeanField_ELBO,
)
from pyro_vae.inference.draws import Draws, draw, draw_terms
from pyro_vae.inference.handlers import temper
from pyro_vae.inference.labels import label_distribution
from pyro_vae.inference.mcmc import Chains, nuts
from pyro_vae.inference.objectives import OBJECTIVES, Objective
from pyro_vae.inference.pair import Pair, Structure
from pyro_vae.inference.resampling import RESAMPLINGS, Resampling
from pyro_vae.inference.schedules import Constant, Cyclical, Linear, Schedule, parse_schedule
from pyro_vae.inference.target import Target
from pyro_vae.inference.terms import Terms
from pyro_vae.inference.training import Trainer

__all__ = [
    "OBJECTIVES",
    "RESAMPLINGS",
    "Chains",
    "CompiledRenyiELBO",
    "CompiledTraceEnum_ELBO",
    "CompiledTraceMeanField_ELBO",
    "CompiledTrace_ELBO",
    "Constant",
    "Cyclical",
    "Draws",
    "Linear",
    "Objective",
    "Pair",
    "Resampling",
    "Schedule",
    "Structure",
    "Target",
    "Terms",
    "Trainer",
    "draw",
    "draw_terms",
    "label_distribution",
    "nuts",
    "parse_schedule",
    "temper",
]

"""What fits a guide to a model: the trainer, its step, loss, optimizers, schedules and resampling of rows."""

from pyro_vae.training.optimizers import OPTIMIZERS, Optimizer
from pyro_vae.training.resampling import RESAMPLINGS, Resampling
from pyro_vae.training.schedules import Constant, Cyclical, Linear, Schedule, parse_schedule
from pyro_vae.training.trainer import Trainer

__all__ = [
    "OPTIMIZERS",
    "RESAMPLINGS",
    "Constant",
    "Cyclical",
    "Linear",
    "Optimizer",
    "Resampling",
    "Schedule",
    "Trainer",
    "parse_schedule",
]

"""What fits a guide to a model: the trainer, its step, loss, schedules and resampling of rows."""

from pyro_vae.training.resampling import RESAMPLINGS, Resampling
from pyro_vae.training.schedules import Constant, Cyclical, Linear, Schedule, parse_schedule
from pyro_vae.training.trainer import Trainer

__all__ = [
    "RESAMPLINGS",
    "Constant",
    "Cyclical",
    "Linear",
    "Resampling",
    "Schedule",
    "Trainer",
    "parse_schedule",
]

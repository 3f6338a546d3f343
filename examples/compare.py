"""How far a fitted guide is from a posterior that is known."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro.infer import Predictive
from torch import Tensor

import pyro_vae

NUM_DRAWS = 4000
Moments = tuple[Tensor, Tensor]  # mean and standard deviation, of the same shape


def draws_of(run: pyro_vae.Run, x: Tensor) -> dict[str, Tensor]:
    """Draws of every latent site from the guide of a run, the first dimension being that of the draws."""
    with run.pair.scope(), torch.no_grad():  # on the fitted values
        drawn: dict[str, Tensor] = Predictive(run.guide, num_samples=NUM_DRAWS, parallel=True)(x)
    return drawn


def against(draws: Mapping[str, Tensor], known: Mapping[str, Moments]) -> dict[str, tuple[float, float]]:
    """Print, and return by site, how far the means are off in standard deviations, and how far the widths in per cent.

    Of a site of many numbers it is the root mean square over them.
    """
    errors = {}
    for name, (mean, width) in known.items():
        drawn = draws[name].reshape(NUM_DRAWS, *mean.shape)
        of_means = (drawn.mean(0) - mean) / width
        of_widths = drawn.std(0) / width - 1
        errors[name] = _root_mean_square(of_means), _root_mean_square(of_widths)
        print(f"{name:12} means {errors[name][0]:.3f} sd off, widths {errors[name][1]:.1%} off")
    return errors


def _root_mean_square(values: Tensor) -> float:
    return values.square().mean().sqrt().item()

"""Pareto-smoothed importance sampling, by whichever ArviZ is installed.

Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto Smoothed Importance Sampling*, JMLR,
2024.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_vae.arviz_bridge.versions import arviz_psislw, contained
from pyro_vae.pairs.memory import at_once

FEWEST_DRAWS = 25  # whose largest fifth is the five that a fit needs

GOOD_K_HAT, USABLE_K_HAT = 0.5, 0.7  # of any number of draws


def psis(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed importance sampling, each datum by itself.

    Args:
        log_weights: log p(x, z) - log q(z | x), nats, shape (S, N); minus infinity is a weight of zero.

    Returns:
        The smoothed log weights, normalized so that those of a datum sum to one, shape (S, N), and k-hat, shape (N,).
        k-hat is infinite, which every threshold refuses, where nothing can be fitted: where a weight is NaN or
        infinite or all are zero (the smoothed weights are then NaN), where fewer than five lie in the tail, and where
        S < 25.  It is 0 where the weights of the tail are equal to rounding, as those of an exact posterior are:
        nothing is heavy there.

    Example:
        >>> from pyro_vae.arviz_bridge import psis
        >>> uniform = torch.rand(2000, 1)
        >>> log_weights = -torch.tensor([0.2, 1.5]) * uniform.log()  # Pareto weights of shape 0.2 and 1.5
        >>> smoothed, k_hat = psis(log_weights)
        >>> k_hat < 0.7, smoothed.shape
        (tensor([ True, False]), torch.Size([2000, 2]))
    """
    smoothed, k_hat = torch.empty_like(log_weights), log_weights.new_empty(log_weights.shape[1])
    step = at_once(len(log_weights))
    for start in range(0, log_weights.shape[1], step):
        part = slice(start, start + step)
        rounding = 64 * torch.finfo(log_weights.dtype).eps
        of_part = _psis(log_weights[:, part].detach().cpu().double().numpy().T, rounding)
        smoothed[:, part], k_hat[part] = (torch.as_tensor(found.T) for found in of_part)
    return smoothed, k_hat


def _psis(log_weights: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed log weights and k-hats of rows of log weights, shape (N, S)."""
    largest = log_weights.max(-1, keepdims=True)
    sound = np.isfinite(largest[:, 0])  # NaN is the largest of any row that holds it
    smoothed = np.full(log_weights.shape, np.nan)
    smoothed[sound] = log_weights[sound] - largest[sound]
    smoothed[sound] -= np.log(np.exp(smoothed[sound]).sum(-1, keepdims=True))
    k_hat = np.full(len(log_weights), np.inf)
    num_draws = log_weights.shape[1]
    if num_draws < FEWEST_DRAWS:
        return smoothed, k_hat
    tail = int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5)))
    threshold = np.partition(log_weights, num_draws - tail - 1, -1)[:, -tail - 1]
    with np.errstate(invalid="ignore"):
        even = sound & (largest[:, 0] - threshold <= rounding * np.maximum(1, np.abs(largest[:, 0])))
    k_hat[even] = 0
    fit = sound & ~even & ((log_weights > threshold[:, None]).sum(-1) >= 5)
    if fit.any():
        with contained():
            smoothed[fit], k_hat[fit] = arviz_psislw(log_weights[fit] - largest[fit])
    k_hat[np.isnan(k_hat)] = np.inf
    return smoothed, k_hat

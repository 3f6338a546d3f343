r"""How good a classifier q(y | x) is: accuracy and calibration.

The expected calibration error puts the data into M bins by the confidence max_y q(y | x) and averages the distance
between accuracy and mean confidence, weighted by the bins' sizes:

    ECE = sum_m |B_m| / N  | acc(B_m) - conf(B_m) |.

Naeini, Cooper and Hauskrecht, *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, 2015; 15 bins of equal
width, as in Guo et al., *On Calibration of Modern Neural Networks*, 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BINS = 15


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of data whose most probable class is the right one.

    Args:
        probabilities: shape (N, K).
        labels: shape (N,).
    """
    return (probabilities.argmax(-1) == labels).double().mean().item()


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The expected calibration error, between 0 and 1.

    Args:
        probabilities: shape (N, K).
        labels: shape (N,).
    """
    confidence, guess = probabilities.double().max(-1)
    surplus = (guess == labels).double() - confidence
    bins = (confidence * NUM_BINS).ceil().clamp(1, NUM_BINS).long() - 1
    per_bin = torch.zeros(NUM_BINS, dtype=torch.float64, device=surplus.device).index_add_(0, bins, surplus)
    return (per_bin.abs().sum() / len(labels)).item()

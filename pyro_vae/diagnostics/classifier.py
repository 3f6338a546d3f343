r"""How good a classifier q(y | x) is: accuracy, calibration, and which classes it confuses.

The data are put into M bins of equal width by the confidence max_y q(y | x).  Accuracy against mean confidence, bin by
bin, is the reliability curve: the diagonal where the classifier is calibrated, below it where it is too sure.  The
expected calibration error averages the distance from the diagonal, weighted by the bins' sizes:

    ECE = sum_m |B_m| / N  | acc(B_m) - conf(B_m) |.

Naeini, Cooper and Hauskrecht, *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, 2015; 15 bins of equal
width, as in Guo et al., *On Calibration of Modern Neural Networks*, 2017, whose diagrams the reliability curve is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.shapes import Float, Int, Shaped

NUM_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """The reliability curve over M bins of equal width; NaN where a bin is empty.

    Args:
        confidence: the mean confidence in each bin, shape (M,).
        accuracy: the share of right answers in each bin, shape (M,).
        count: the data in each bin, shape (M,).

    Example:
        >>> from pyro_vae.diagnostics import reliability
        >>> probabilities = torch.tensor([[0.95, 0.05], [0.85, 0.15], [0.25, 0.75], [0.65, 0.35]])
        >>> curve = reliability(probabilities, torch.tensor([0, 0, 1, 1]), num_bins=10)
        >>> curve.count.int().tolist()  # no confidence up to 0.6, then one in each bin
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
        >>> round(curve.expected_error, 3), round(curve.largest_error, 3)  # the last datum is taken for the wrong class
        (0.275, 0.65)
    """

    confidence: Float[Tensor, "B"]
    accuracy: Float[Tensor, "B"]
    count: Shaped[Tensor, "B"]

    @property
    def edges(self) -> Float[Tensor, "_"]:
        """The bins' edges, shape (M + 1,)."""
        return torch.linspace(0, 1, len(self.count) + 1, dtype=torch.float64)

    @property
    def error(self) -> Tensor:
        """The binomial standard error of each accuracy if the classifier is calibrated, shape (M,)."""
        return (self.confidence * (1 - self.confidence) / self.count).sqrt()

    @property
    def expected_error(self) -> float:
        """The expected calibration error, between 0 and 1."""
        return self._gaps.dot(self.count / self.count.sum()).item()

    @property
    def largest_error(self) -> float:
        """The maximum calibration error: the distance of the worst bin that holds data from the diagonal."""
        return self._gaps.max().item()

    @property
    def _gaps(self) -> Float[Tensor, "B"]:
        return (self.accuracy - self.confidence).abs().nan_to_num(0.0)

    def as_dict(self) -> dict[str, Any]:
        """The bins that hold data, and the two errors."""
        rows = zip(self.confidence.tolist(), self.accuracy.tolist(), self.count.tolist(), strict=True)
        bins = [{"confidence": c, "accuracy": a, "count": int(n)} for c, a, n in rows if n]
        return {"ece": self.expected_error, "mce": self.largest_error, "bins": bins}


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of data whose most probable class is the right one.

    Args:
        probabilities: shape (N, K).
        labels: shape (N,).

    Example:
        >>> from pyro_vae.diagnostics import accuracy
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
        >>> accuracy(probabilities, torch.tensor([0, 0, 1, 1]))
        0.75
    """
    return (probabilities.argmax(-1) == labels).double().mean().item()


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The expected calibration error, between 0 and 1.

    Args:
        probabilities: shape (N, K).
        labels: shape (N,).

    Example:
        >>> from pyro_vae.diagnostics import expected_calibration_error
        >>> coin = torch.full((4, 2), 0.5)
        >>> expected_calibration_error(coin, torch.tensor([0, 0, 1, 1]))  # half sure, and right half of the time
        0.0
        >>> expected_calibration_error(coin, torch.tensor([0, 0, 0, 0]))  # right every time
        0.5
    """
    return reliability(probabilities, labels).expected_error


def reliability(probabilities: Tensor, labels: Tensor, num_bins: int = NUM_BINS) -> Reliability:
    """Accuracy against confidence, bin by bin.

    Args:
        probabilities: shape (N, K).
        labels: shape (N,).
        num_bins: M.

    Raises:
        InputError: if there are no data, no bins, or as many labels as rows are not there.

    Example:
        >>> from pyro_vae.diagnostics import reliability
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
        >>> curve = reliability(probabilities, torch.tensor([0, 0, 1, 1]), num_bins=2)
        >>> curve.count.int().tolist()
        [0, 4]
        >>> round(curve.confidence[1].item(), 2), curve.accuracy[1].item()  # calibrated, as far as four data can tell
        (0.75, 0.75)
    """
    _check_rows(probabilities, labels)
    if num_bins < 1:
        raise InputError("at least one bin", str(num_bins), "use num_bins=15")
    confidence, guess = probabilities.detach().double().cpu().max(-1)
    right = (guess == labels.cpu()).double()
    bins = (confidence * num_bins).ceil().clamp(1, num_bins).long() - 1

    def total(values: Shaped[Tensor, "N"]) -> Float[Tensor, "B"]:
        return torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, values)

    count = total(torch.ones_like(right))
    return Reliability(total(confidence) / count, total(right) / count, count)


def confusion_matrix(probabilities: Tensor, labels: Tensor) -> Int[Tensor, "K K"]:
    """The number of data of each class (row) by their most probable class (column), shape (K, K).

    Args:
        probabilities: shape (N, K).
        labels: shape (N,), between 0 and K - 1.

    Raises:
        InputError: if there are no data, or as many labels as rows are not there.

    Example:
        >>> from pyro_vae.diagnostics import confusion_matrix
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
        >>> confusion_matrix(probabilities, torch.tensor([0, 0, 1, 1]))
        tensor([[2, 0],
                [1, 1]])
    """
    _check_rows(probabilities, labels)
    num_classes = probabilities.shape[-1]
    cells = labels.cpu() * num_classes + probabilities.argmax(-1).cpu()
    return cells.bincount(minlength=num_classes**2).reshape(num_classes, num_classes)


def _check_rows(probabilities: Tensor, labels: Tensor) -> None:
    if probabilities.dim() != 2 or not len(probabilities) or labels.shape != probabilities.shape[:1]:
        raise InputError(
            "probabilities of shape (N, K) and labels of shape (N,), N at least 1",
            f"shapes {tuple(probabilities.shape)} and {tuple(labels.shape)}",
            "give a label for each row",
        )

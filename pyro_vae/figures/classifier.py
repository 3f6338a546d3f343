"""Figures of a classifier q(y | x): its calibration, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from pyro_vae.diagnostics.classifier import Reliability
from pyro_vae.figures.style import BLUE, GRAY, ORANGE, ManyAxes, as_drawn, dress, many_axes, one_axes

MOST_NAMES = 40


MOST_CELLS = 15  # a side of a confusion matrix whose cells are written into


def reliability_diagram(curve: Reliability, axes: ManyAxes | None = None) -> Figure:
    """Accuracy against confidence, bin by bin, above how many data each bin holds.

    Args:
        curve: the reliability curve.
        axes: where to draw, two, which share their abscissa; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import reliability
        >>> curve = reliability(torch.full((4, 2), 0.5), torch.tensor([0, 0, 0, 0]))
        >>> figures.reliability_diagram(curve).axes[0].get_title()
        'Reliability, expected calibration error 50.0 %'
    """
    figure, (top, bottom) = many_axes(axes, 2, (4.4, 4.9), columns=1, sharex=True, height_ratios=(3.2, 1))
    edges, count = curve.edges.numpy(), curve.count.numpy()
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    accuracy, confidence = curve.accuracy.numpy(), curve.confidence.numpy()
    full = count > 0
    top.bar(middle[full], accuracy[full], width[full], color=BLUE, alpha=0.35, edgecolor="white", linewidth=0.6)
    top.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, label="calibrated")
    error = np.sqrt(accuracy * (1 - accuracy) / np.maximum(count, 1))
    top.errorbar(
        confidence[full],
        accuracy[full],
        error[full],
        fmt="o",
        color=BLUE,
        markersize=4,
        linewidth=1,
        label="accuracy, with its standard error",
    )
    top.vlines(
        confidence[full],
        np.minimum(accuracy, confidence)[full],
        np.maximum(accuracy, confidence)[full],
        color=ORANGE,
        linewidth=2,
        alpha=0.8,
        label="distance from calibrated",
    )
    top.set_xlim(0, 1)
    top.set_ylim(0, 1.02)
    top.legend(frameon=False, fontsize=8, loc="upper left")
    dress(top, f"Reliability, expected calibration error {100 * curve.expected_error:.1f} %", "", "accuracy")
    bottom.bar(middle, count, width, color=GRAY, alpha=0.6, edgecolor="white", linewidth=0.6)
    bottom.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    dress(bottom, "", "confidence, max q(y|x)", "data")
    return figure


def confusion(matrix: Tensor, class_names: Sequence[str], ax: Axes | None = None) -> Figure:
    """The classes of the data (rows) by what they were taken for (columns): shares in colour, counts in the cells.

    Args:
        matrix: counts, shape (K, K).
        class_names: the K names.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> figure = figures.confusion(torch.tensor([[2, 0], [1, 1]]), ["cat", "dog"])
        >>> figure.axes[0].get_title()
        '75.0 % of 4 right'
    """
    counts = matrix.cpu().numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(counts)
    side = float(np.clip(0.45 * size, 3.0, 8.0))
    figure, ax = one_axes(ax, (side + 1.2, side + 0.7))
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(picture, ax=ax, format=PercentFormatter(1, decimals=0), pad=0.02, shrink=0.85)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    if size <= MOST_CELLS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else "black"
            ax.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=color)
    shown = range(0, size, math.ceil(size / MOST_NAMES))
    names = [as_drawn(class_names[i]) for i in shown]
    ax.set_xticks([*shown], names, fontsize=8, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks([*shown], names, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    right = counts.trace() / max(counts.sum(), 1)
    ax.set_title(f"{100 * right:.1f} % of {counts.sum():,} right", fontsize=10)
    ax.set_xlabel("most probable class under q(y|x)", fontsize=9)
    ax.set_ylabel("label", fontsize=9)
    return figure

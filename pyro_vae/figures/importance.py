"""Figures of importance weights: k-hat per datum, the bound by the number of samples, and the worst data."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.arviz_bridge.pareto import GOOD_K_HAT
from pyro_vae.diagnostics.importance import Importance
from pyro_vae.figures.images import show
from pyro_vae.figures.pictures import as_arrays
from pyro_vae.figures.style import BLUE, GRAY, GREEN, ORANGE, ManyAxes, dress, many_axes

WORST = 20
COLUMNS = 10


def weights(found: Importance, axes: ManyAxes | None = None) -> Figure:
    """The k-hat of the data, and the rise of the bound with the number of samples.

    Args:
        found: the weights.
        axes: where to draw, two; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import importance_sample
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8).round()
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> figure = figures.weights(importance_sample(target, num_samples=100))
        >>> [ax.get_title() for ax in figure.axes]
        ['Pareto k-hat of 20 data, 100 samples each', 'The bound, from K = 1 to log p(x)']
    """
    figure, (left, right) = many_axes(axes, 2, (7.6, 3.2))
    _k_hat(left, found)
    _bounds(right, found)
    return figure


def worst_data(images: Tensor, found: Importance, axes: ManyAxes | None = None) -> Figure:
    """The images with the largest k-hat, each with its row and k-hat.

    Args:
        images: the data that the weights are of, shape (N, C, H, W).
        found: the weights.
        axes: where to draw, one per image, of which there are at most twenty; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import importance_sample
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(30, 1, 8, 8).round()
        >>> found = importance_sample(Target(Pair(model, MeanField(model)).probe(x), x), num_samples=100)
        >>> len(figures.worst_data(x, found).axes)  # the worst twenty
        20
    """
    order = found.k_hat.argsort(descending=True)[:WORST]
    tiles = as_arrays(images[order])
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    figure, panels = many_axes(axes, len(tiles), (0.95 * columns, 1.2 * rows + 0.4), columns)
    for ax, tile, index in zip(panels, tiles, order.tolist(), strict=True):
        ax.set_axis_off()
        show(ax, tile)
        k_hat = found.k_hat[index]
        color = ORANGE if k_hat > found.k_limit else "black"
        ax.set_title(f"{index}: {k_hat:.2f}", fontsize=7, color=color, pad=2)
    if axes is None:
        figure.suptitle(f"The data with the largest k-hat, by row; beyond {found.k_limit:.2f} in orange", fontsize=9)
    return figure


def _k_hat(ax: Axes, found: Importance) -> None:
    k_hat = found.k_hat.double()
    finite = k_hat[k_hat.isfinite()].numpy()
    edges = np.linspace(min(-0.25, finite.min(initial=0.0)), max(1.0, finite.max(initial=0.0)), 41).tolist()
    for low, high, color, word in (
        (-np.inf, GOOD_K_HAT, GREEN, f"good, up to {GOOD_K_HAT}"),
        (GOOD_K_HAT, found.k_limit, BLUE, f"usable, up to {found.k_limit:.2f}"),
        (found.k_limit, np.inf, ORANGE, "not to be relied on"),
    ):
        part = finite[(finite > low) & (finite <= high)]
        share = len(part) / max(1, len(k_hat))
        ax.hist(part, edges, color=color, alpha=0.75, label=f"{word}: {share:.0%}")
    lost = len(k_hat) - len(finite)
    title = f"{lost} without a finite k-hat" if lost else None
    ax.legend(loc="upper right", frameon=False, fontsize=8, title=title, title_fontsize=8)
    dress(ax, f"Pareto k-hat of {len(k_hat):,} data, {found.num_samples:,} samples each", "k-hat", "data")


def _bounds(ax: Axes, found: Importance) -> None:
    sizes = sorted({int(size) for size in np.geomspace(1, found.num_samples, 12)})
    bounds = found.curve(sizes)
    means = torch.stack([bounds[size] for size in sizes])
    means = means.masked_fill(~means.isfinite(), torch.nan)
    mean = means.nanmean(1).numpy()
    if not np.isfinite(mean).all():
        ax.text(0.5, 0.5, "no weights that are finite", ha="center", va="center", color=GRAY, fontsize=9)
        ax.set_axis_off()
        return
    ax.plot(sizes, mean, ".-", color=BLUE)
    ax.axhline(mean[0], color=GRAY, linewidth=0.8, linestyle=":")
    ax.annotate(f"{mean[0]:.2f}", (sizes[0], mean[0]), textcoords="offset points", xytext=(0, 5), fontsize=8)
    ax.annotate(
        f"{mean[-1]:.2f}", (sizes[-1], mean[-1]), textcoords="offset points", xytext=(0, 5), fontsize=8, ha="right"
    )
    ax.margins(y=0.15)
    ax.set_xscale("log")
    dress(ax, "The bound, from K = 1 to log p(x)", "samples of a bound, K", "nats per datum")

"""Figures of posteriors side by side, made as those of ``images``: guides over NUTS and the exact answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pyro_vae.comparison.compare import Comparison
from pyro_vae.comparison.methods import EXACT, NUTS, Method
from pyro_vae.figures.style import BLUE, GRAY, GREEN, ORANGE, ManyAxes, as_drawn, literal, many_axes, one_axes

GUIDE_COLORS = (ORANGE, BLUE, GREEN, "#832db6", "#bd1f01", "#a96b59", "#00858a", "#b9ac70")
SHARES = (0.5, 0.9)  # of the probability inside a contour
POINTS = 1500  # in a cloud
NUM_BINS = 80
PANEL = 3.0  # inches per side
MOST_ROWS = 12


def overlay(
    comparison: Comparison,
    datum: int = 0,
    across: int | None = None,
    up: int | None = None,
    axes: ManyAxes | None = None,
) -> Figure:
    """A panel per guide: contours of 50 and 90% over the draws of NUTS and the contours of the exact posterior.

    Args:
        comparison: the methods.
        datum: whose posterior.
        across: the coordinate on the horizontal axis; with ``up`` by default the two that depend most on each other.
        up: that on the vertical axis.
        axes: where to draw, one per guide; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.comparison import compare_mcmc
        >>> from pyro_vae.posterior import Sampling
        >>> few = Sampling(num_samples=10, num_warmup=6, num_chains=1)
        >>> comparison = compare_mcmc(guides=["mean_field", "full_rank"], latent_dim=2, sampling=few, num_steps=10)
        >>> [ax.get_title() for ax in figures.overlay(comparison).axes]
        ['mean_field', 'full_rank']
    """
    cloud = comparison.method(NUTS)
    guides = [method for method in comparison.methods if method.name not in (NUTS, EXACT)]
    exact = next((each for each in comparison.methods if each.name == EXACT), None)
    pair = _pair(exact or cloud, datum, across, up)
    points = cloud.u[:: max(1, len(cloud.u) // POINTS), datum][:, pair].numpy()
    limits = [_limits([method.u[:, datum, i] for method in comparison.methods]) for i in pair]
    columns = min(len(guides), 4)
    size = (max(4.6, PANEL * columns + 0.4), PANEL * -(-len(guides) // columns) + 0.9)
    figure, panels = many_axes(axes, len(guides), size, columns, sharex=True, sharey=True)
    for ax, guide, color in zip(panels, guides, _colors(guides), strict=True):
        ax.scatter(points[:, 0], points[:, 1], s=3, color=GRAY, alpha=0.35, linewidths=0, rasterized=True)
        _contours(ax, guide, datum, pair, limits, color, "-")
        if exact is not None:
            _contours(ax, exact, datum, pair, limits, "black", (0, (2, 2)))
        ax.set_title(as_drawn(guide.name), fontsize=10, color=color)
        _dress(ax, limits)
        ax.set_xlabel(literal(comparison.names[pair[0]]), fontsize=9)
    for ax in panels[:: columns if axes is None else 1]:
        ax.set_ylabel(literal(comparison.names[pair[1]]), fontsize=9)
    _add_key(figure, None if axes is None else panels[0], exact is not None)
    if axes is None:
        figure.suptitle(_title(comparison, datum), fontsize=10)
    return figure


def forest(comparison: Comparison, datum: int = 0, ax: Axes | None = None) -> Figure:
    """Means and central 50 and 94% of every coordinate, a line per method.

    Args:
        comparison: the methods.
        datum: whose posterior; of many coordinates the first dozen.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.comparison import compare_mcmc
        >>> from pyro_vae.posterior import Sampling
        >>> few = Sampling(num_samples=10, num_warmup=6, num_chains=1)
        >>> figure = figures.forest(compare_mcmc(guides=["mean_field"], latent_dim=2, sampling=few, num_steps=10))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['z[0]', 'z[1]']
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['mean_field', 'nuts', 'exact']
    """
    methods = comparison.methods
    colors = _colors(methods)
    count = min(len(comparison.names), MOST_ROWS)
    high = 0.13 * len(methods) + 0.12
    is_new = ax is None
    figure, ax = one_axes(ax, (6.2, max(2.2, high * count + 1.3)))
    for row in range(count):
        for place, (method, color) in enumerate(zip(methods, colors, strict=True)):
            _intervals(ax, row + (place - (len(methods) - 1) / 2) * 0.8 / len(methods), method, datum, row, color)
    ax.set_yticks(range(count), [as_drawn(name) for name in comparison.names[:count]], fontsize=9)
    ax.set_ylim(count - 0.5, -0.5)
    for row in range(1, count):
        ax.axhline(row - 0.5, color=GRAY, alpha=0.2, linewidth=0.8)
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("mean, and central 50% and 94%", fontsize=9)
    ax.set_title(_title(comparison, datum), fontsize=10)
    key = [
        Line2D([], [], color=color, linewidth=2.5, label=as_drawn(method.name))
        for method, color in zip(methods, colors, strict=True)
    ]
    if is_new:
        figure.legend(handles=key, loc="outside lower center", ncols=min(len(key), 4), frameon=False, fontsize=9)
    else:
        ax.legend(handles=key, frameon=False, fontsize=8)
    return figure


def _intervals(ax: Axes, y: float, method: Method, datum: int, coordinate: int, color: str) -> None:
    """The mean and central intervals of a coordinate, as a line at a height."""
    low, first, third, top = np.quantile(method.u[:, datum, coordinate].numpy(), (0.03, 0.25, 0.75, 0.97))
    ax.hlines(y, low, top, color=color, linewidth=1.0)
    ax.hlines(y, first, third, color=color, linewidth=2.8)
    mean = method.mean[datum, coordinate].item()
    ax.plot(mean, y, "o", color="white", markeredgecolor=color, markersize=4, zorder=3)


def _add_key(figure: Figure, ax: Axes | None, with_exact: bool) -> None:
    """Add the legend of an overlay: below a new figure, or on axes of the caller's."""
    key = [Line2D([], [], color=GRAY, marker="o", markersize=4, linestyle="none", label="NUTS")]
    key += [Line2D([], [], color="black", linestyle=(0, (2, 2)), label="exact")] if with_exact else []
    key += [Line2D([], [], color=ORANGE, label="guide; 50 and 90% inside")]
    if ax is not None:
        ax.legend(handles=key, frameon=False, fontsize=7)
    else:
        figure.legend(handles=key, loc="outside lower center", ncols=len(key), frameon=False, fontsize=9)


def _title(comparison: Comparison, datum: int) -> str:
    caveat = "" if not comparison.reasons else "\n(these NUTS draws are not a reference)"
    return f"{literal(comparison.model)}: posterior of datum {datum}{caveat}"


def _colors(methods: Sequence[Method]) -> list[str]:
    """Black for the exact posterior, gray for NUTS, and a colour a guide."""
    guides = [method.name for method in methods if method.name not in (NUTS, EXACT)]
    fixed = {EXACT: "black", NUTS: GRAY}
    return [fixed.get(m.name) or GUIDE_COLORS[guides.index(m.name) % len(GUIDE_COLORS)] for m in methods]


def _pair(method: Method, datum: int, across: int | None, up: int | None) -> list[int]:
    """Two coordinates: those given, else the most correlated ones, or the most bent: one with the other's square."""
    size = method.u.shape[-1]
    if across is not None and up is not None:
        return [across, up]
    if size == 1:
        return [0, 0]
    draws = method.u[:, datum].double()
    bent = torch.corrcoef(torch.cat([draws, (draws - draws.mean(0)).square()], -1).T)[:size, size:].abs()
    strength = torch.maximum(method.correlation[datum].abs(), torch.maximum(bent, bent.T))
    row, column = divmod(int(strength.triu(1).argmax()), size)
    return [row, column]


def _limits(draws: Sequence[Tensor]) -> tuple[float, float]:
    ends = np.array([np.quantile(values.numpy(), (0.002, 0.998)) for values in draws])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    margin = 0.08 * (high - low) + 1e-6
    return float(low - margin), float(high + margin)


def _contours(
    ax: Axes, method: Method, datum: int, pair: list[int], limits: list[tuple[float, float]], color: str, style: Any
) -> None:
    """Lines that hold the shares of the probability: of the normal where it is one, else of a smoothed histogram."""
    grid = [np.linspace(low, high, NUM_BINS + 1) for low, high in limits]
    middles = [(edges[1:] + edges[:-1]) / 2 for edges in grid]
    if method.is_normal and pair[0] != pair[1]:
        from scipy.stats import multivariate_normal

        block = method.covariance[datum][pair][:, pair].numpy()
        points = np.stack(np.meshgrid(*middles, indexing="ij"), -1)
        density = multivariate_normal(method.mean[datum][pair].numpy(), block, allow_singular=True).pdf(points)
    else:
        from scipy.ndimage import gaussian_filter

        across, up = method.u[:, datum][:, pair].numpy().T
        counts = np.histogram2d(across, up, bins=(grid[0], grid[1]))[0]
        density = gaussian_filter(counts, 1.5)
    ordered = np.sort(density.ravel())[::-1]
    inside = ordered.cumsum() / ordered.sum()
    levels = sorted({float(ordered[np.searchsorted(inside, share)]) for share in SHARES})
    ax.contour(*middles, density.T, levels=levels, colors=color, linewidths=1.4, linestyles=[style])


def _dress(ax: Axes, limits: list[tuple[float, float]]) -> None:
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)

"""Figures of what the latents are used for, made as those of ``images``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.diagnostics.aggregate import AggregatePosterior
from pyro_vae.diagnostics.evaluation import ACTIVE_VARIANCE
from pyro_vae.diagnostics.latent_units import LatentUse, SiteUse
from pyro_vae.figures.style import BLUE, GRAY, ORANGE, ManyAxes, dress, literal, many_axes, p_value_text

MOST_BARS = 40
MOST_UNITS = 6


def unit_use(use: LatentUse, axes: ManyAxes | None = None) -> Figure:
    """The divergence of each unit and its activity, the most used first; a row of panels per site.

    Args:
        use: what the latents are used for.
        axes: where to draw, two per site; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import latent_use
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8).round()
        >>> figure = figures.unit_use(latent_use(Pair(model, MeanField(model)).probe(x), x))
        >>> figure.axes[1].get_title()  # of a guide without training
        '0 of 2 units active (above 0.01)'
    """
    rows = len(use.sites)
    figure, panels = many_axes(axes, 2 * rows, (7.6, 2.7 * rows), columns=2)
    for left, right, site in zip(panels[::2], panels[1::2], use.sites, strict=True):
        order = site.activity.argsort(descending=True)
        if site.unit_kl is not None:
            order = site.unit_kl.argsort(descending=True)
        _divergences(left, site, order[:MOST_BARS])
        _activities(right, site, order[:MOST_BARS])
    return figure


def aggregate(found: AggregatePosterior, axes: ManyAxes | None = None) -> Figure:
    """The aggregate posterior beside the prior, in the coordinates where they differ most, and in the worst two.

    Args:
        found: the draws and their comparison.
        axes: where to draw, one per coordinate, of which there are at most six, and one for the worst two together;
            default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import aggregate_posterior
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(50, 1, 8, 8).round()
        >>> found = aggregate_posterior(Target(Pair(model, MeanField(model)).probe(x), x), num_permutations=99)
        >>> figures.aggregate(found).axes[-1].get_title()  # after a panel for each
        'The two worst coordinates'
    """
    worst = found.worst[:MOST_UNITS]
    count = len(worst) + (len(worst) > 1)
    figure, panels = _parted(len(worst)) if axes is None else many_axes(axes, count, (0, 0))
    for ax, k in zip(panels, worst, strict=False):
        _marginals(ax, found, k)
    if count > 1:
        _plane(panels[-1], found, worst[0], worst[1])
    else:
        panels[0].legend(frameon=False, fontsize=8, loc="upper right")
    if axes is None:
        distance = f"energy distance {found.test.distance:.2g}, {p_value_text(found.p_value)}"
        figure.suptitle(f"Aggregate posterior and prior: {distance}", fontsize=10)
    return figure


def _parted(num_worst: int) -> tuple[Figure, list[Axes]]:
    """A new figure: small panels to the left and, where there are several, a large one to the right."""
    columns = min(3, num_worst)
    rows = math.ceil(num_worst / columns)
    plane = num_worst > 1
    wide = 2.0 * columns if plane else 4.6
    figure = Figure(figsize=(wide + 3.4 * plane, max(2.6, 1.9 * rows) + 0.4), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(wide, 3.4)) if plane else [figure]
    panels = parts[0].subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in panels[num_worst:]:
        ax.set_axis_off()
    return figure, panels[:num_worst] + ([parts[1].subplots()] if plane else [])


def _divergences(ax: Axes, site: SiteUse, order: Tensor) -> None:
    total = f"KL of {site.name}: {site.kl:.2f} nats"
    if site.unit_kl is None:
        ax.text(
            0.5, 0.5, "not defined for single units\nof this guide", ha="center", va="center", color=GRAY, fontsize=9
        )
        ax.set_axis_off()
        ax.set_title(literal(total), fontsize=10)
        return
    note = "" if site.adds_up else ", marginals"
    dress(ax, total, "unit", f"KL, nats{note}")
    _bars(ax, site, order, site.unit_kl)


def _activities(ax: Axes, site: SiteUse, order: Tensor) -> None:
    title = f"{site.num_active} of {len(site.activity)} units active (above {ACTIVE_VARIANCE:g})"
    dress(ax, title, "unit", "variance of E[z|x]")
    lowest = ACTIVE_VARIANCE / 100
    _bars(ax, site, order, site.activity.clamp(min=lowest))
    ax.axhline(ACTIVE_VARIANCE, color=ORANGE, linewidth=1, linestyle="--")
    ax.set_yscale("log")
    ax.set_ylim(lowest, 2 * max(ACTIVE_VARIANCE, site.activity.max().item()))


def _bars(ax: Axes, site: SiteUse, order: Tensor, heights: Tensor) -> None:
    colors = [BLUE if active else GRAY for active in site.active[order].tolist()]
    places = np.arange(len(order))
    ax.bar(places, heights[order].numpy(), color=colors, width=0.8)
    many = len(order) > 20
    ax.set_xticks(places, [str(i) for i in order.tolist()], fontsize=6.5 if many else 8, rotation=90 if many else 0)
    ax.tick_params("x", length=0, pad=4)
    ax.grid(False, axis="x")
    ax.margins(x=0.01)


def _marginals(ax: Axes, found: AggregatePosterior, k: int) -> None:
    posterior, prior = found.posterior[:, k].numpy(), found.prior[:, k].numpy()
    low, high = np.quantile(np.concatenate([posterior, prior]), [0.002, 0.998])
    edges = np.linspace(low, high, 31).tolist()
    ax.hist(prior, edges, density=True, color=GRAY, alpha=0.45, label="prior")
    ax.hist(posterior, edges, density=True, histtype="step", color=BLUE, linewidth=1.4, label="posterior")
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(labelsize=8)
    p = found.unit_p_values[k].item()
    ax.set_title(f"{literal(found.names[k])}, {p_value_text(p)}", fontsize=9, color=ORANGE if p <= 0.01 else "black")


def _plane(ax: Axes, found: AggregatePosterior, across: int, up: int) -> None:
    size = float(np.clip(6000 / len(found.prior), 5, 20))
    for draws, color, name in ((found.prior, GRAY, "prior"), (found.posterior, BLUE, "posterior")):
        ax.scatter(
            draws[:, across].numpy(), draws[:, up].numpy(), s=size, color=color, alpha=0.55, linewidths=0, label=name
        )
    ax.legend(frameon=False, fontsize=8, loc="upper right", markerscale=2.5)
    dress(ax, "The two worst coordinates", found.names[across], found.names[up])

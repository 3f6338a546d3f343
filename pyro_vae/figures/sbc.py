"""Figures of simulation-based calibration: the ranks of truths among draws, and the coverage of intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pyro_vae.diagnostics.ranks import UniformRanks
from pyro_vae.diagnostics.sbc import JOINT, SBC
from pyro_vae.figures.style import BLUE, GRAY, ORANGE, ManyAxes, dress, literal, many_axes, one_axes, p_value_text

RANK_BINS = 20


def ranks(sbc: SBC, axes: ManyAxes | None = None) -> Figure:
    """The ranks of simulation-based calibration, for all quantities and for the worst.

    Left the share of ranks below each value less what is expected, with the band that calibrated ranks leave anywhere,
    in any of the lines, with probability 5 %: above it at small values where the guide lies too high.  Right the ranks
    of the worst quantity, with the bounds that hold 95 % of single bars.

    Args:
        sbc: the calibration.
        axes: where to draw, two; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import simulation_based_calibration
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), scale=0.2), torch.zeros(2, 3)
        >>> sbc = simulation_based_calibration(Pair(model, MeanField(model)).probe(x), x, num_data=100, num_draws=99)
        >>> figures.ranks(sbc).axes[1].get_title()  # a guide without training says about what the prior says
        'log p(x, z), the worst: draws too improbable'
    """
    law = UniformRanks(sbc.num_data, sbc.num_draws)
    edges = np.concatenate([[0.0], law.shares, [1.0]])
    order = sbc.p_values.argsort().tolist()
    figure, (left, right) = many_axes(axes, 2, (8.4, 3.7), width_ratios=(1.35, 1))
    low, high = (
        np.concatenate([[0], side, [sbc.num_data]]) / sbc.num_data - edges for side in law.band(sbc.band_level)
    )
    left.fill_between(edges, low, high, color=GRAY, alpha=0.2, linewidth=0, label="95 % of calibrated ones inside")
    left.axhline(0, color=GRAY, linewidth=0.8)
    for k in reversed(order):
        below = (sbc.ranks[:, k].numpy()[:, None] < law.points).mean(0)
        curve = np.concatenate([[0], below, [1]]) - edges
        color, style = ORANGE if sbc.directions[k] else BLUE, "-" if sbc.is_coordinate[k] else "--"
        left.plot(edges, curve, color=color, linestyle=style, linewidth=0.9, alpha=0.8)
    _line_key(left, [bool(direction) for direction in sbc.directions])
    if not all(sbc.is_coordinate):
        left.plot([], [], color="black", linestyle="--", linewidth=0.9, label=literal(JOINT))
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    dress(left, f"Ranks of the truth, {p_value_text(sbc.p_value)}", "rank / number of draws", "ECDF less uniform")
    _histogram(right, sbc, order[0])
    return figure


def coverage(sbc: SBC, ax: Axes | None = None) -> Figure:
    """The share of central credible intervals that hold the truth, against their content, a line per coordinate.

    Args:
        sbc: the calibration.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> from pyro_vae.diagnostics import simulation_based_calibration
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.zeros(2, 1, 8, 8)
        >>> sbc = simulation_based_calibration(Pair(model, MeanField(model)).probe(x), x, num_data=50, num_draws=39)
        >>> figures.coverage(sbc).axes[0].get_title()
        'Coverage (dots: 50, 80 and 95 % intervals, mean)'
    """
    chosen = [k for k, coordinate in enumerate(sbc.is_coordinate) if coordinate]
    found = sbc.ranks[:, chosen].numpy()
    tails = np.arange((sbc.num_draws + 1) // 2 + 1)
    content = 1 - 2 * tails / (sbc.num_draws + 1)
    outermost = np.minimum(found, sbc.num_draws - found)
    held = (outermost[None] >= tails[:, None, None]).mean(1)  # (tails, D)
    figure, ax = one_axes(ax, (4.4, 4.1))
    error = np.sqrt(content * (1 - content) / sbc.num_data)
    band = (content - 2 * error, content + 2 * error)
    ax.fill_between(content, *band, color=GRAY, alpha=0.2, linewidth=0, label="two binomial errors")
    ax.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8)
    wrong = [bool(sbc.directions[k]) for k in chosen]
    for line, flagged in sorted(zip(held.T, wrong, strict=True), key=lambda pair: pair[1]):
        ax.plot(content, line, color=ORANGE if flagged else BLUE, linewidth=0.9, alpha=0.7)
    _line_key(ax, wrong)
    for each in sbc.coverage:
        at, mean = (-6, 7), each.observed.mean().item()
        ax.plot(each.nominal, mean, "o", color="black", markersize=4, zorder=5)
        ax.annotate(f"{mean:.0%}", (each.nominal, mean), at, textcoords="offset points", ha="right", fontsize=8)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    dress(ax, "Coverage (dots: 50, 80 and 95 % intervals, mean)", "content of the interval", "truths inside")
    return figure


def _histogram(ax: Axes, sbc: SBC, k: int) -> None:
    """The ranks of one quantity, with the bounds of calibrated bars."""
    from scipy.stats import binom

    bins = min(RANK_BINS, sbc.num_draws + 1)
    edges = np.unique(np.linspace(0, sbc.num_draws + 1, bins + 1).round()) - 0.5
    share = np.diff(edges) / (sbc.num_draws + 1)
    expected = sbc.num_data * share
    low, high = (binom.ppf(level, sbc.num_data, share) for level in (0.025, 0.975))
    wrong = sbc.directions[k]
    ax.fill_between(edges, [*low, low[-1]], [*high, high[-1]], step="post", color=GRAY, alpha=0.25, linewidth=0)
    counts = np.histogram(sbc.ranks[:, k].numpy(), edges)[0]
    width = np.diff(edges)
    color = ORANGE if wrong else BLUE
    ax.bar(edges[:-1], counts, width, align="edge", color=color, alpha=0.7, edgecolor="white", linewidth=0.6)
    ax.stairs(expected, edges, color=GRAY, linewidth=0.8, baseline=None)
    ax.set_xlim(edges[0], edges[-1])
    found = wrong or "nothing found"
    dress(ax, f"{sbc.names[k]}, the worst: {found}", f"rank among {sbc.num_draws} draws", "simulated data")


def _line_key(ax: Axes, flagged: Sequence[bool]) -> None:
    """Entries of a legend for lines of the colours that are there."""
    for kind, color, name in ((False, BLUE, "not flagged"), (True, ORANGE, "flagged")):
        if kind in flagged:
            ax.plot([], [], color=color, label=name)

"""The figure of a table: what a model makes of each column, beside the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae.figures.style import BLUE, ORANGE, ManyAxes, as_drawn, literal, many_axes

MOST_COLUMNS = 30  # in a figure
MOST_BARS = 8  # categories, the most frequent first
BINS = 20
ACROSS = 5  # panels


def columns_compared(data: pd.DataFrame, made: pd.DataFrame, title: str, axes: ManyAxes | None = None) -> Figure:
    """The distribution of each column in the data and in what a model made.

    Numbers are histograms from the smallest to the largest of the data, beyond which nothing is drawn; categories and
    truth values are bars, of the most frequent eight where there are more.  The first thirty columns are drawn.

    Args:
        data: rows of the data.
        made: rows from the model, with the same columns.
        title: above all panels of a new figure.
        axes: where to draw, one per column drawn; default: a new figure.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae import figures
        >>> data = pd.DataFrame({"height": [1.5, 1.7, 1.8], "color": ["red", "red", "blue"]})
        >>> [ax.get_title() for ax in figures.columns_compared(data, data, "The same").axes]
        ['height', 'color']
    """
    names = list(data.columns)[:MOST_COLUMNS]
    across = min(ACROSS, len(names))
    down = math.ceil(len(names) / across)
    figure, panels = many_axes(axes, len(names), (max(4.0, 2.3 * across), 1.9 * down + 0.6), across)
    for ax, name in zip(panels, names, strict=True):
        _draw(ax, data[name].dropna(), made[name].dropna())
        ax.set_title(as_drawn(str(name)), fontsize=8)
        ax.tick_params(labelsize=6)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=6)
    if axes is None:
        more = f"; {len(names)} of {data.shape[1]} columns" if len(names) < data.shape[1] else ""
        figure.suptitle(literal(title + more), fontsize=10)
    return figure


def _draw(ax: Axes, data: pd.Series, made: pd.Series) -> None:
    if pd.api.types.is_numeric_dtype(data.dtype) and not pd.api.types.is_bool_dtype(data.dtype) and data.nunique() > 2:
        values = data.to_numpy(dtype=float)
        edges = np.histogram_bin_edges(values, min(BINS, 2 + math.isqrt(len(values))))
        bins: Any = edges
        ax.hist(values, bins, density=True, color=BLUE, alpha=0.45, label="data")
        inside = made.to_numpy(dtype=float)
        inside = inside[(inside >= edges[0]) & (inside <= edges[-1])]
        share = len(inside) / max(1, len(made))
        weights = np.full(len(inside), share / max(1, len(inside)) / (edges[1] - edges[0]))
        ax.hist(inside, bins, weights=weights, histtype="step", color=ORANGE, linewidth=1.3, label="model")
        return
    shown = data.value_counts().index[:MOST_BARS]
    for offset, values, color, label in ((-0.2, data, BLUE, "data"), (0.2, made, ORANGE, "model")):
        shares = [_share(values, each) for each in shown]
        ax.bar(np.arange(len(shown)) + offset, shares, 0.4, color=color, alpha=0.7, label=label)
    ax.set_xticks(np.arange(len(shown)), [as_drawn(str(each)) for each in shown], rotation=30, ha="right")


def _share(values: pd.Series, category: Any) -> float:
    return float((values == category).mean()) if len(values) else 0.0

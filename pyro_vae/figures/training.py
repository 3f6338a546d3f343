"""The figure of a training: the bound and its terms over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae.figures.latent_space import CLASS_COLORS
from pyro_vae.figures.style import BLUE, GRAY, GREEN, ORANGE, as_drawn, dress_epochs

LINES = ("-", "--", ":", "-.")


def elbo_curves(history: pd.DataFrame) -> Figure:
    """The bound and its terms over the epochs, and the accuracy where there is one.

    Args:
        history: a run's history, one row per epoch.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit(data=torch.rand(40, 1, 8, 8).round(), latent_dim=2, epochs=2, display=False)
        >>> [ax.get_title() for ax in figures.elbo_curves(run.history).axes]
        ['Validation bound', 'KL(q || p)']
    """
    columns = [name for name in ("validation_kl", "validation_accuracy") if name in history]
    figure = Figure(figsize=(4.6 * (1 + len(columns)), 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + len(columns)))
    epoch = history["epoch"]
    axes[0].plot(epoch, history["validation_elbo"], color=BLUE, label="ELBO")
    if "validation_log_likelihood" in history:
        axes[0].plot(epoch, history["validation_log_likelihood"], color=ORANGE, label="E[log p(x|z)]")
    if history["validation_elbo"].notna().any():
        _mark_best(axes[0], history)
    axes[0].legend(frameon=False, loc="lower right")
    dress_epochs(axes[0], "Validation bound", "nats per datum")
    for ax, name in zip(axes[1:], columns, strict=True):
        if name == "validation_kl":
            ax.plot(epoch, history[name], color=GREEN)
            dress_epochs(ax, "KL(q || p)", "nats per datum")
            if history["beta"].nunique() > 1:
                twin = ax.twinx()
                twin.plot(epoch, history["beta"], color=GRAY, linestyle=":")
                twin.set_ylabel("beta", color=GRAY)
                twin.spines["top"].set_visible(False)
        else:
            ax.plot(epoch, 100 * history[name], color=ORANGE)
            dress_epochs(ax, "Validation accuracy of q(y|x)", "percent")
    return figure


def compare_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The validation bound of several runs over their epochs.

    Args:
        histories: one row per epoch, by the name of the run.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae import figures
        >>> history = pd.DataFrame({"epoch": [1, 2], "validation_elbo": [-90.0, -80.0]})
        >>> figure = figures.compare_curves({"one": history, "other": history})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['one', 'other']
    """
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    ax = figure.subplots()
    for index, (name, history) in enumerate(histories.items()):
        color, line = CLASS_COLORS[index % len(CLASS_COLORS)], LINES[index // len(CLASS_COLORS) % len(LINES)]
        ax.plot(history["epoch"], history["validation_elbo"], color=color, linestyle=line, label=as_drawn(name))
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    dress_epochs(ax, "Validation ELBO", "nats per datum")
    return figure


def _mark_best(ax: Axes, history: pd.DataFrame) -> None:
    best = history.loc[history["validation_elbo"].idxmax()]
    ax.plot(best["epoch"], best["validation_elbo"], "o", color=BLUE, markersize=5)
    ax.annotate(
        f"{best['validation_elbo']:.2f}",
        (best["epoch"], best["validation_elbo"]),
        textcoords="offset points",
        xytext=(0, -14),
        ha="right",
        color=BLUE,
        fontsize=8,
    )
